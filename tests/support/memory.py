"""Peak of this process's anonymous memory, for scripts that tests run in a process of their own."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL_S = 0.002


def anonymous_mb() -> float:
    """What is mapped here and belongs to no file."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) * 1024 / 1e6


class AnonymousPeak:
    """Context manager; `mb`: how far the memory rose above what it was at the start."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.is_set():
            self.mb = max(self.mb, anonymous_mb() - self._before)
            time.sleep(INTERVAL_S)

    def __enter__(self) -> Self:
        self._before = anonymous_mb()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

"""A builder beside training, as its parent sees it: started, watched, ended."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from persianmind.common.checksum import write_checked
from persianmind.common.child import end_child, start_child
from persianmind.common.poll import wait_until
from persianmind.data.build.priority import BuildOrder
from persianmind.data.build.source import SourceJob
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.incremental import read_failure, write_failure

WORKER = "persianmind.data.build.worker"
END_WITHIN_S = 10.0
RETRY_S = 2.0


class BackgroundBuild:
    """Context manager: one process that builds sources until they are whole, or until the block is left.

    What it had built by then is kept, and the next one goes on from there. A process that dies before its
    time is reported in the folders it leaves unfinished, where every reader looks. Without jobs nothing is
    started. What it is to do is written beside its log, as a .json file.
    """

    def __init__(self, jobs: Sequence[SourceJob], order: BuildOrder, log: Path) -> None:
        self._folders = [job.out for job in jobs]
        self._log = log
        self._ending = False
        self._process: subprocess.Popen[bytes] | None = None
        if not jobs:
            return
        plan = log.with_suffix(".json")  # not an argument: a source of many files does not fit into one
        write_checked(
            plan,
            {
                "jobs": [job.model_dump(mode="json") for job in jobs],
                "order": order.model_dump(mode="json"),
            },
        )
        with log.open("ab") as output:
            # A session of its own: Ctrl-C is for training, which ends the builder when it is done itself.
            self._process = start_child(
                WORKER,
                {"plan": str(plan)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._watch, args=(self._process,), name="builder", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The process, if one was started."""
        return None if self._process is None else self._process.pid

    def end(self) -> None:
        """Ends the process if it is not done."""
        self._ending = True
        if self._process is not None:
            end_child(self._process, END_WITHIN_S)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if self._ending or code == 0:
            return
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        for folder in self._folders:
            if not (folder / MANIFEST).is_file() and read_failure(folder) is None:
                self._report(
                    folder,
                    f"the process that builds {folder} {how} before it was done (its log: {self._log}); run "
                    "the same command, it goes on from the last whole shard",
                )

    def _report(self, folder: Path, text: str) -> None:
        """Readers would wait for ever without it, so a disk that is full is asked again."""

        def is_told() -> bool:
            if not self._ending:
                try:
                    write_failure(folder, text)
                except OSError:
                    return False
            return True

        wait_until(is_told, interval_s=RETRY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

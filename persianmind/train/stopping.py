"""When a run is asked to stop: by a signal, or because the launcher above it is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(launcher_pids: Callable[[], list[int]]) -> Iterator[Callable[[], bool]]:
    """The first SIGTERM or SIGINT asks for a stop at the next step; a second one ends the process at once.

    A launcher may not pass on a SIGTERM (`deepspeed` on one machine does not): it dies and would leave its
    ranks running without anybody to stop them. So an end of the launchers asks for a stop too.
    """
    asked = False
    above = launcher_pids()

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked or launcher_pids()[: len(above)] != above
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

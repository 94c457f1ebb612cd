"""When a run is asked to stop: by a signal, or because the launcher above it is gone."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType, TracebackType
from typing import Any, Self

from persianmind.common.errors import PersianMindError, RunInterruptedError
from persianmind.common.log import leave_lost_terminal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# One request can come as several signals: terminals and job systems signal every process of a run, and the
# launcher passes on to its ranks what it gets itself.
SAME_REQUEST_S = 2.0
INTERRUPTED_WITHIN_S = 20.0  # of code that Python cannot interrupt; launchers kill after 30 s
WATCH_INTERVAL_S = 1.0


class AskedElsewhere:
    """As `Stopping`, where somebody else hears of the stop (the cluster's driver): it is answered at steps,
    and wherever ranks wait."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self) -> bool:
        return self._asked()

    def at_steps(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Stopping:
    """Context manager around the run of one rank; calling it says whether a stop was asked for.

    SIGTERM, SIGINT and SIGHUP ask for one, unless the process was started with them ignored (as nohup does);
    so does the end of the launcher, which may die without a word to its ranks. The run is then interrupted
    wherever it stands, which costs it nothing: what is whole is kept. Only within `at_steps` it is left to
    the caller to stop once the step is saved. A second request ends the process at once, with 128 + signal.

    launcher_is_gone: looked at every second. kept: what is left, for the one line. end: ends the process.
    """

    def __init__(
        self,
        launcher_is_gone: Callable[[], bool],
        *,
        kept: str = "what is whole is kept, run the same command to go on",
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._kept = kept
        self._launcher_is_gone = launcher_is_gone
        self._end = end
        self._asked_s: float | None = None
        self._interrupts = True
        self._is_interrupted = False
        self._deadline_s = float("inf")
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._asked_s is not None

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._interrupt) for number in heard}
        # Told at once also while the main thread is in code that runs no handler.
        self._previous_wakeup = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        self._watching = threading.Thread(target=self._watch, name="stopping", daemon=True)
        try:
            self._watching.start()
        except KeyboardInterrupt:  # a stop that came before the block began
            self.__exit__(None, None, None)
            raise self._error() from None
        return self

    @contextmanager
    def at_steps(self) -> Iterator[None]:
        """A block that asks by itself, and saves before it stops.

        Raises:
            RunInterruptedError: a stop was asked for and the block came to its end before it looked.
        """
        self._interrupts, self._deadline_s = False, float("inf")
        yield
        self._interrupts = True
        if self():
            self._is_interrupted = True
            raise self._error()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts = False  # what follows is short, and not to be left half done
        self._over.set()
        signal.set_wakeup_fd(self._previous_wakeup)
        os.write(self._writes, b"\0")
        self._watching.join()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._reads)
        os.close(self._writes)
        # Also where an interrupted exchange with other ranks ended in an error of its own.
        if self._is_interrupted and kind is not None and not issubclass(kind, PersianMindError):
            raise self._error() from None

    def _error(self) -> RunInterruptedError:
        error = RunInterruptedError(f"stopped; {self._kept}")
        # One line for a run; after a rank has failed, its launcher stops the others, and it has the reason.
        error.by_all_ranks = True
        return error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler, in the main thread."""
        if number == signal.SIGHUP:
            leave_lost_terminal()
        self._asked_s = self._asked_s or time.monotonic()
        if self._interrupts and not self._is_interrupted:
            self._is_interrupted = True
            raise KeyboardInterrupt  # which passes through `except Exception`

    def _watch(self) -> None:
        while not self._over.is_set():
            if select.select([self._reads], [], [], WATCH_INTERVAL_S)[0]:
                for number in os.read(self._reads, 64):
                    self._count(number)
            elif not self() and self._launcher_is_gone():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            if time.monotonic() > self._deadline_s:
                self._end(RunInterruptedError.exit_code)

    def _count(self, number: int) -> None:
        if number not in self._previous:
            return
        now_s = time.monotonic()
        if self._asked_s is not None and now_s - self._asked_s > SAME_REQUEST_S:
            self._end(128 + number)
        self._asked_s = self._asked_s or now_s
        if self._interrupts:
            self._deadline_s = min(self._deadline_s, now_s + INTERRUPTED_WITHIN_S)


def stopping(
    asked: Callable[[], bool] | None, launcher_is_gone: Callable[[], bool]
) -> AskedElsewhere | Stopping:
    """How a run hears of a stop. asked: what somebody else says; None: signals to this process do."""
    return Stopping(launcher_is_gone) if asked is None else AskedElsewhere(asked)

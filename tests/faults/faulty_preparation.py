"""Faults while a run is prepared or its data are built: "kind:rank:0".

prepare-freeze, prepare-kill: SIGSTOP, SIGKILL to this rank where it builds the vocabulary; prepare-hang: it
sleeps there for ever, prepare-fail: an error of ours, prepare-slow: the same after SLOW_S of work.
builder-full: neither the builder nor its parent can write one byte more; builder-stop: SIGSTOP to it.
quick (on all ranks): QUICK_S without progress is enough. Controls: unwatched-preparation, unjudged-builder.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from persianmind.common.errors import VocabError
from persianmind.common.poll import wait_until
from persianmind.common.progress import count_work
from persianmind.data.build import service
from persianmind.data.build.service import BackgroundBuild
from persianmind.train import preparation, prepare, run
from persianmind.train.callbacks.watchdog import Watchdog

QUICK_S, SLOW_S = 10.0, 30.0
REASON = "the text supports no new piece"


def install(kind: str) -> None:
    """Breaks preparation on this rank."""
    FAULTS[kind]()


def quick() -> None:
    """Short limits."""
    run.preparation_timeout_s = preparation.preparation_timeout_s = lambda _: QUICK_S
    preparation.LOOK_INTERVAL_S = 0.1


def unwatched() -> None:
    """Nobody looks at rank 0, nor rank 0 at itself."""
    preparation.PreparationWatch.check = lambda self: None  # type: ignore[method-assign]
    Watchdog.watch = lambda self: None  # type: ignore[method-assign]


def unjudged() -> None:
    """The builder is waited for, whatever becomes of it."""
    BackgroundBuild.failures = lambda self: {}  # type: ignore[method-assign]
    preparation.preparation_timeout_s = lambda _: float("inf")


def _in_vocabulary(action: Callable[[], object]) -> None:
    ordinary = prepare._build_vocabulary

    def faulty(*arguments: Any) -> None:
        action()
        ordinary(*arguments)

    prepare._build_vocabulary = faulty


def _signal(number: int) -> Callable[[], None]:
    def action() -> None:
        time.sleep(QUICK_S / 5)  # two heartbeats: the others know what is being prepared
        os.kill(os.getpid(), number)

    return lambda: _in_vocabulary(action)


def _fail() -> None:
    def action() -> None:
        raise VocabError(REASON)

    _in_vocabulary(action)


def _slow() -> None:
    def action() -> None:
        for _ in range(int(SLOW_S * 10)):
            time.sleep(0.1)
            count_work()
        raise VocabError(REASON)

    _in_vocabulary(action)


def _with_builder(action: Callable[[int], object]) -> None:
    ordinary = run.background_build

    def faulty(*arguments: Any) -> BackgroundBuild:
        builder = ordinary(*arguments)
        assert builder.pid is not None
        action(builder.pid)
        return builder

    run.background_build = faulty


def _full() -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    service.write_failure = fail
    _with_builder(lambda pid: resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0)))


def _stop() -> None:
    def action(pid: int) -> None:
        wait_until(lambda: psutil.Process(pid).nice() > os.nice(0))  # from then on it dies with its parent
        os.kill(pid, signal.SIGSTOP)

    _with_builder(action)


FAULTS: dict[str, Callable[[], None]] = {
    "prepare-freeze": _signal(signal.SIGSTOP),
    "prepare-kill": _signal(signal.SIGKILL),
    "prepare-hang": lambda: _in_vocabulary(lambda: time.sleep(3600)),
    "prepare-fail": _fail,
    "prepare-slow": _slow,
    "builder-full": _full,
    "builder-stop": _stop,
}
CONTROLS = {"quick": quick, "unwatched-preparation": unwatched, "unjudged-builder": unjudged}

"""Faults in the saves of a real run: "kind:rank:step:detail", in the save of that step.

kill-save, term-save: the signal to that rank when rank 0 reaches the phase `detail` of the save.
limit: no file of that rank may grow beyond `detail` bytes in the save (a full disk, by the kernel).
fsync, rename, manifest: that call fails with an input/output error. room: the disk looks as good as full.
stall: this rank hangs in it. leftovers (a control): a failed save leaves its temporary folder.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from persianmind.checkpoint import store
from persianmind.checkpoint.store import CheckpointStore

KINDS = ("kill-save", "term-save", "limit", "fsync", "rename", "manifest", "room", "leftovers", "stall")


def install(kind: str, rank: int, step: int, detail: str = "") -> None:
    """Breaks the save of `step` on this rank, if it is the one meant."""
    me = int(os.environ.get("RANK", "0"))
    if kind in ("kill-save", "term-save"):
        if me == 0:
            number = signal.SIGKILL if kind == "kill-save" else signal.SIGTERM
            _around_save(step, on_phase=lambda phase: phase == detail and _signal(rank, number))
    elif me == rank:
        break_it, fix = _disk_fault(kind, detail)
        _around_save(step, before=break_it, after=fix)


def _around_save(
    step: int,
    *,
    on_phase: Callable[[str], object] = lambda _: None,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    ordinary = CheckpointStore.save

    def faulty(self: CheckpointStore, number: int, *arguments: Any, **options: Any) -> Path:
        if number != step:
            return ordinary(self, number, *arguments, **options)
        inner = self._on_phase
        self._on_phase = lambda phase: (inner(phase), on_phase(phase))[0]
        before()
        try:
            return ordinary(self, number, *arguments, **options)
        finally:
            after()
            self._on_phase = inner

    CheckpointStore.save = faulty  # type: ignore[method-assign]


def _signal(rank: int, number: int) -> None:
    os.kill(int((Path(os.environ["PIDS"]) / f"pid-{rank}").read_text(encoding="ascii")), number)


def _disk_fault(kind: str, detail: str) -> tuple[Callable[[], object], Callable[[], object]]:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if kind == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        # Under the limit an import would leave half a .pyc in the environment for every later run to fail on.
        sys.dont_write_bytecode = True
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        return (
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(detail), hard)),
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
        )
    owner, name, broken = {
        "fsync": (store, "fsync_file", fail),
        "rename": (Path, "rename", fail),
        "stall": (store, "hash_file", lambda _: time.sleep(3600)),
        "manifest": (store, "write_manifest", fail),
        "room": (store.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000)),
        "leftovers": (store.shutil, "rmtree", lambda *_, **__: None),
    }[kind]
    whole = getattr(owner, name)
    return lambda: setattr(owner, name, broken), lambda: setattr(owner, name, whole)

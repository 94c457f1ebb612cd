"""One run at a time in a run folder.

The lock is a POSIX record lock: the kernel drops it with the process, however that dies, forked children do
not inherit it, and network filesystems carry it between nodes. Where a filesystem knows no locks, the
recorded owner (host, pid, start time) decides instead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from persianmind.common.errors import RunLockedError

LOCK = ".lock"
_BUSY = {errno.EACCES, errno.EAGAIN}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# Record locks belong to the process, so a second one of the same process would be granted, and closing any
# descriptor of the file would drop the first: one process therefore asks this set before it opens the file.
_held: set[Path] = set()
_guard = threading.Lock()


def _start_time_s(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started_s": _start_time_s(os.getpid())}


def _alive(owner: dict[str, Any]) -> bool:
    """Whether the recorded owner may still run. Of another host nothing can be known: it may."""
    if owner.get("host") != socket.gethostname():
        return True
    started_s = _start_time_s(int(owner.get("pid", -1)))
    recorded_s = owner.get("started_s")
    # A pid is reused after a reboot or a long run; its start time is not (1 s: clocks are adjusted).
    return started_s is not None and (recorded_s is None or abs(started_s - float(recorded_s)) < 1.0)


class RunLock:
    """Context manager that holds `run` for this process (rank 0 takes it for the whole group).

    `taken_over_from` names the owner of a stale lock that was taken over, for the log.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / LOCK
        self._descriptor: int | None = None
        self.taken_over_from: str | None = None

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            RunLockedError: a living process holds it; the message names its pid and host.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        key = self._path.parent.resolve() / LOCK
        with _guard:
            if key in _held:
                raise self._refusal(_me())
            if self._path.is_symlink():
                raise RunLockedError(f"{self._path} is a symbolic link; remove it")
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                self._acquire(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            _held.add(key)
        self._descriptor = descriptor
        return self

    def _acquire(self, descriptor: int) -> None:
        owner = _read_owner(descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                raise self._refusal(owner) from None
            if error.errno not in _UNSUPPORTED:
                raise
            if owner and _alive(owner):
                # Only here can a dead owner look alive: it ran on another host.
                raise self._refusal(owner, f" (if it is surely gone, delete {self._path})") from None
        if owner:
            self.taken_over_from = f"pid {owner.get('pid')} on {owner.get('host')}"
        _write_owner(descriptor, json.dumps(_me()))

    def _refusal(self, owner: dict[str, Any], hint: str = "") -> RunLockedError:
        who = f"pid {owner['pid']} on {owner.get('host')}" if owner.get("pid") else "another process"
        return RunLockedError(
            f"{self._path.parent} is in use by {who}; wait for it, stop it, or give another --output{hint}"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with _guard:
            with contextlib.suppress(OSError):
                _write_owner(descriptor, "")  # released in order: the next one finds no stale owner
            os.close(descriptor)
            _held.discard(self._path.parent.resolve() / LOCK)


def _read_owner(descriptor: int) -> dict[str, Any]:
    """The recorded owner; empty where none is recorded or the record was cut by a crash."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _write_owner(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode("utf-8"), 0)
    os.fsync(descriptor)

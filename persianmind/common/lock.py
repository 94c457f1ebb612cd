"""A lock that one process holds at a time and that says who holds it.

The lock is filelock's (flock): the kernel drops it with the process, however that dies, and network file
systems carry it between nodes. Where a file system knows no locks, the recorded owner (host, pid, start
time) decides.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import BaseFileLock, FileLock, Timeout

from persianmind.common.disk import writing
from persianmind.common.errors import DiskError
from persianmind.common.poll import wait_until
from persianmind.common.progress import count_work


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The process that holds, or held, a lock."""

    host: str
    pid: int
    started_s: float | None

    @classmethod
    def me(cls) -> LockOwner:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _start_time_s(os.getpid()))

    def may_be_alive(self) -> bool:
        """Whether it may still run. Of another host nothing can be known: it may."""
        if self.host != socket.gethostname():
            return True
        started_s = _start_time_s(self.pid)
        # A pid is reused after a reboot or a long run; its start time is not (1 s: clocks are adjusted).
        return started_s is not None and (self.started_s is None or abs(started_s - self.started_s) < 1.0)

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class LockHeldError(Exception):
    """Another process holds the lock. `owner`: who, where it is recorded; `certain`: the kernel says so, not
    the record alone."""

    def __init__(self, path: Path, owner: LockOwner | None, *, certain: bool = True) -> None:
        super().__init__(f"{path} is held by {owner or 'another process'}")
        self.owner = owner
        self.certain = certain


class OwnedLock:
    """Context manager: holds `path` for this process, at once or not at all.

    The file stays after release, without an owner in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, timeout=0, thread_local=False, mode=0o644)

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            LockHeldError: a living process holds it.
            OSError: the file cannot be made (a symbolic link is refused); a DiskError where its disk
                refuses it.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_symlink():
            raise OSError(f"{self.path} is a symbolic link")
        try:
            self._lock.acquire()
        except Timeout:
            raise LockHeldError(self.path, read_owner(self.path)) from None
        except (NotImplementedError, OSError):  # a file system without locks
            owner = read_owner(self.path)
            if owner is not None and owner.may_be_alive():
                raise LockHeldError(self.path, owner, certain=False) from None
        try:
            with writing(self.path):
                _write(self.path, json.dumps(asdict(LockOwner.me())))
        except DiskError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            _write(self.path, "")  # released in order: the next one finds no stale owner
        with contextlib.suppress(OSError, NotImplementedError):
            self._lock.release()


@contextmanager
def held_when_free(lock: BaseFileLock, growing: Path) -> Iterator[None]:
    """Waits for a lock and holds it. While another process has it, a change of what that one makes is work
    done: this process waits for somebody who is busy.

    Args:
        growing: the file or folder that the holder of the lock makes.
    """
    seen: tuple[int, int] | None = None

    def take() -> bool:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def look() -> None:
        nonlocal seen
        with contextlib.suppress(FileNotFoundError):
            stat = growing.stat()
            if (now := (stat.st_size, stat.st_mtime_ns)) != seen:
                seen = now
                count_work()

    wait_until(take, while_waiting=look)
    try:
        yield
    finally:
        lock.release()


def read_owner(path: Path) -> LockOwner | None:
    """The recorded owner; None where none is recorded or the record was cut by a crash."""
    try:
        return LockOwner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, text: str) -> None:
    """In place: the file that is locked must stay the one that is named."""
    with path.open("r+" if path.exists() else "w", encoding="utf-8") as handle:
        handle.truncate(0)
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def _start_time_s(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None

"""One process at a time holds a lock: a living holder is respected, a dead one is not waited for."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from persianmind.common.lock import LockHeldError, LockOwner, OwnedLock, read_owner

# "fork": a worker forked while the lock is held, which shares it; "start": one that is started (exec), as
# all of ours are, and does not.
HOLDER = """
import os, subprocess, sys, pathlib
from persianmind.common.lock import OwnedLock
ends_with_parent, parents_end = os.pipe()
with OwnedLock(pathlib.Path(sys.argv[1])):
    if sys.argv[2:] == ["fork"] and os.fork() == 0:
        os.close(1); os.close(parents_end); os.read(ends_with_parent, 1); os._exit(0)
    if sys.argv[2:] == ["start"]:
        subprocess.Popen(["cat"], stdout=subprocess.DEVNULL, close_fds=False)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path, *mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(path), *mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        try:
            yield process
        finally:
            process.kill()


def owner(pid: int, started_s: float | None = None, host: str | None = None) -> str:
    return json.dumps({"host": host or socket.gethostname(), "pid": pid, "started_s": started_s})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / ".lock"


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A file system that knows no locks: the recorded owner decides."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    path.parent.mkdir()


def test_a_second_process_is_refused_and_told_who_holds(path: Path) -> None:
    with holder(path) as process, pytest.raises(LockHeldError) as refused, OwnedLock(path):
        pytest.fail("two processes hold one lock")
    assert refused.value.certain
    assert str(refused.value.owner) == f"pid {process.pid} on {socket.gethostname()}"


def test_control_without_the_kernel_lock_the_second_one_enters(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with holder(path), OwnedLock(path):
        pass


def test_two_locks_of_one_process_exclude_each_other_too(path: Path) -> None:
    with OwnedLock(path), pytest.raises(LockHeldError, match=f"pid {os.getpid()}"):
        OwnedLock(path).__enter__()


@pytest.mark.parametrize("mode", [(), ("start",)])
def test_the_lock_of_a_killed_process_is_free(path: Path, mode: tuple[str, ...]) -> None:
    """Also while a worker that it started lives on."""
    with holder(path, *mode) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = read_owner(path)
        assert left is not None and left.pid == process.pid and not left.may_be_alive()
        with OwnedLock(path):
            assert read_owner(path) == LockOwner.me()


def test_an_orderly_release_does_not_wait_for_a_forked_worker(path: Path) -> None:
    """A forked child shares the lock, but the holder's release drops it for both."""
    with holder(path, "fork") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "released\n"
        with OwnedLock(path):
            pass


def test_an_orderly_end_leaves_no_owner(path: Path) -> None:
    for _ in range(2):
        with OwnedLock(path):
            assert read_owner(path) == LockOwner.me()
        assert path.read_text() == "" and read_owner(path) is None


def test_released_after_an_error_too(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), OwnedLock(path):
        raise ZeroDivisionError
    with OwnedLock(path):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        OwnedLock(path).__enter__()
    assert target.read_text() == "keep me"


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", owner(2**22 + 1), owner(os.getpid(), started_s=1.0)],
    ids=["nothing", "cut", "foreign", "dead", "reused"],
)
def test_without_locks_a_dead_or_reused_pid_is_taken_over(path: Path, text: str) -> None:
    """Nothing recorded, a cut record, a pid that does not exist, a pid that another process has now."""
    path.write_text(text)
    with OwnedLock(path):
        assert read_owner(path) == LockOwner.me()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_living_owner_is_respected(path: Path) -> None:
    parent = psutil.Process(os.getppid())
    for text in (owner(parent.pid, parent.create_time()), owner(1, host="another-node")):
        path.write_text(text)
        with pytest.raises(LockHeldError, match="is held by pid") as refused:
            OwnedLock(path).__enter__()
        assert not refused.value.certain  # the record alone says so

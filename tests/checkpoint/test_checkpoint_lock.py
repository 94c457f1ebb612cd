"""One run in a folder: a living holder is respected, a dead one is not waited for."""

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

from persianmind.common.errors import RunLockedError
from persianmind.common.lock import LOCK, RunLock

HOLDER = """
import os, sys, pathlib
from persianmind.common.lock import RunLock
with RunLock(pathlib.Path(sys.argv[1])):
    if sys.argv[2:] == ["fork"] and os.fork() == 0:
        os.close(1); os.read(0, 1); os._exit(0)   # a forked worker that outlives its parent
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(run: Path, *mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(run), *mode]
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
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem that knows no locks: the recorded owner decides."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)


def test_second_run_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    with holder(tmp_path) as process, pytest.raises(RunLockedError) as refused, RunLock(tmp_path):
        pytest.fail("two runs in one folder")
    assert f"pid {process.pid} on {socket.gethostname()}" in str(refused.value)


def test_control_without_the_kernel_lock_the_second_run_enters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "lockf", lambda *_: None)
    with holder(tmp_path), RunLock(tmp_path):
        pass


@pytest.mark.parametrize("mode", [(), ("fork",)])
def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path, mode: tuple[str, ...]) -> None:
    with holder(tmp_path, *mode) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with RunLock(tmp_path) as lock:
            assert lock.taken_over_from == f"pid {process.pid} on {socket.gethostname()}"
            with pytest.raises(RunLockedError, match=f"pid {os.getpid()}"):
                RunLock(tmp_path).__enter__()


def test_orderly_end_leaves_nothing_to_take_over(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path / "run") as lock:
            assert lock.taken_over_from is None
    assert (tmp_path / "run" / LOCK).read_text() == ""


def test_released_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        raise ZeroDivisionError
    with RunLock(tmp_path):
        pass


def test_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(target)
    with pytest.raises(RunLockedError, match="symbolic link"):
        RunLock(tmp_path / "run").__enter__()
    assert target.read_text() == "keep me"


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("text", ["", "{", "[]", owner(2**22 + 1), owner(os.getpid(), started_s=1.0)])
def test_without_locks_a_dead_or_reused_pid_is_taken_over(tmp_path: Path, text: str) -> None:
    """Nothing recorded, a cut record, a pid that does not exist, a pid that another process has now."""
    (tmp_path / LOCK).write_text(text)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_living_owner_is_respected(tmp_path: Path) -> None:
    parent = psutil.Process(os.getppid())
    for text in (owner(parent.pid, parent.create_time()), owner(1, host="another-node")):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(RunLockedError, match=r"in use by pid .*surely gone, delete"):
            RunLock(tmp_path).__enter__()

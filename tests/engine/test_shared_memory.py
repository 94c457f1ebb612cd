"""Buffers that killed ranks left in shared memory: the next start removes them, and no one else's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from persianmind.engine.deepspeed import shared_memory
from persianmind.engine.deepspeed.shared_memory import remove_dead_buffers

# A living rank: opens, or maps and closes, the file that it is given, and says so.
HOLD = """
import mmap, sys
file = open(sys.argv[2], "r+b")
kept = file
if sys.argv[1] == "maps":
    kept = mmap.mmap(file.fileno(), 0)
    file.close()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /dev/shm."""
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path)
    return tmp_path


def buffer(memory: Path, rank: int, user: int | None = None) -> Path:
    user = os.getuid() if user is None else user
    path = memory / f"deepspeed_allreduce_buffer_{user}_127.0.0.1_29500_{rank}"
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture(params=["opens", "maps"])
def living(request: pytest.FixtureRequest, memory: Path) -> Iterator[Path]:
    """The buffer of a rank that lives."""
    path = buffer(memory, rank=7)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, request.param, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield path


def test_those_of_dead_ranks_go_and_no_others(
    memory: Path, living: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "persianmind")
    dead = [buffer(memory, rank) for rank in range(2)]
    (memory / f"{dead[0].name}_link").symlink_to(memory / "elsewhere")
    (memory / f"{dead[0].name}_folder").mkdir()
    foreign = [buffer(memory, 0, user=os.getuid() + 1), memory / "nccl-x", memory / "elsewhere"]
    for path in foreign[1:]:
        path.write_bytes(b"x")
    before = set(memory.iterdir())
    assert remove_dead_buffers() == dead
    assert set(memory.iterdir()) == before - set(dead)
    assert living.is_file() and foreign[0].is_file()
    assert caplog.messages == [f"shared memory: 0 MB of killed runs removed from {memory}"]
    assert remove_dead_buffers() == []


def test_control_only_what_living_processes_have_open_keeps_theirs(
    living: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_opened_by_own_processes", set)
    assert remove_dead_buffers() == [living]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("uids", lambda: SimpleNamespace(real=os.getuid() + 1)),  # another user's cannot have it
        ("cmdline", lambda: ["/sbin/init"]),  # no rank
    ],
)
def test_nothing_goes_while_a_rank_does_not_show_what_it_has_open(
    memory: Path, monkeypatch: pytest.MonkeyPatch, change: str, answer: object
) -> None:
    path = buffer(memory, rank=0)

    def refuse(place: Path) -> Iterator[str]:
        raise PermissionError(13, "Permission denied", str(place))

    hidden = SimpleNamespace(
        pid=os.getpid(),
        uids=lambda: SimpleNamespace(real=os.getuid()),
        status=lambda: psutil.STATUS_SLEEPING,
        cmdline=lambda: ["/usr/bin/python3", "launcher/train.py"],
    )
    monkeypatch.setattr(psutil, "process_iter", lambda: [hidden])
    monkeypatch.setattr(shared_memory, "_opened_by", refuse)
    assert remove_dead_buffers() == [] and path.is_file()
    monkeypatch.setattr(hidden, change, answer)
    assert remove_dead_buffers() == [path]

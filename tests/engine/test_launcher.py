"""Launchers above a rank: found, and missed once one of them has ended, also before the rank looked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from persianmind.common.poll import wait_until
from persianmind.engine.deepspeed import launcher
from tests.support.launch import ROOT

pytestmark = pytest.mark.integration
PROBE = Path(__file__).with_name("launcher_probe.py")
PROGRAMS = {
    "deepspeed": "bin/deepspeed",
    "launch": "deepspeed/launcher/launch.py",
    "shell": "bin/shell",
    "rank": "rank.py",
}


class Chain:
    """Real processes, each started by the one before it, in a session of their own."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names
        for name in names:
            place = folder / PROGRAMS[name]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROBE, place)
        programs = [str(folder / PROGRAMS[name]) for name in names]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.first = subprocess.Popen(
            [sys.executable, programs[0], str(folder), *programs[1:]], env=environment, start_new_session=True
        )
        assert wait_until((folder / "rank.pid").is_file, timeout_s=30, interval_s=0.01)

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def kill(self, name: str) -> None:
        """kill -9, and the end of it."""
        os.kill(self.pid(name), signal.SIGKILL)
        if name == self.names[0]:
            self.first.wait(30)
        assert wait_until(lambda: self._is_gone(self.pid(name)), timeout_s=30, interval_s=0.01)

    def begin(self) -> None:
        """The rank looks for the first time."""
        (self.folder / "begin").touch()
        assert wait_until((self.folder / "seen").is_file, timeout_s=30, interval_s=0.01)

    def seen(self) -> dict[str, Any]:
        """What the rank sees from now on."""
        (self.folder / "seen").unlink()
        assert wait_until((self.folder / "seen").is_file, timeout_s=30, interval_s=0.01)
        found: dict[str, Any] = json.loads((self.folder / "seen").read_text())
        return found

    def end(self) -> None:
        for name in self.names:
            with suppress(OSError, ValueError):
                os.kill(self.pid(name), signal.SIGKILL)
        self.first.wait(30)

    def _is_gone(self, pid: int) -> bool:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    chains: list[Chain] = []

    def make(*names: str) -> Chain:
        chains.append(Chain(tmp_path, list(names)))
        return chains[-1]

    yield make
    for chain in chains:
        chain.end()


WITH_COMMAND = ("deepspeed", "launch", "rank")
OVER_SSH = ("shell", "launch", "rank")
WRAPPED = ("deepspeed", "launch", "shell", "rank")
BY_HAND = ("shell", "rank")


@pytest.mark.parametrize(
    ("names", "killed", "gone"),
    [
        (WITH_COMMAND, None, False),
        (WITH_COMMAND, "deepspeed", True),
        (WITH_COMMAND, "launch", True),
        (OVER_SSH, None, False),
        (OVER_SSH, "launch", True),
        (OVER_SSH, "shell", True),
        (WRAPPED, None, False),
        (BY_HAND, None, False),
        (BY_HAND, "shell", False),  # as after nohup: nobody's business
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_launcher_that_was_killed_before_or_after_the_rank_looked(
    start: Any, names: tuple[str, ...], killed: str | None, gone: bool, when: str
) -> None:
    chain = start(*names)
    if when == "after":
        chain.begin()
        assert not chain.seen()["gone"]
    if killed is not None:
        chain.kill(killed)
    if when == "before":
        chain.begin()
    assert chain.seen()["gone"] is gone


def test_launchers_are_found_by_their_program_nearest_first(start: Any) -> None:
    chain = start(*WITH_COMMAND)
    chain.begin()
    assert chain.seen()["above"] == [chain.pid("launch"), chain.pid("deepspeed")]
    assert launcher._is_launcher(["python", "-m", "deepspeed.launcher.launch", "--world_info=x"])
    assert not launcher._is_launcher(["bash", "-c", "deepspeed launcher/train.py"])


def test_control_without_the_sessions_a_launcher_that_died_early_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that says it was started by a launcher, and whose parent is of another session."""
    monkeypatch.setattr(launcher, "_above", [])
    monkeypatch.setattr(launcher, "_launchers", list)
    monkeypatch.setenv(launcher.STARTED, "0")
    monkeypatch.setattr(os, "getsid", lambda pid: 5 if pid == os.getpid() else 6)
    assert launcher.launcher_is_gone()
    monkeypatch.setattr(launcher, "_lost_its_parent", lambda process: False)
    assert not launcher.launcher_is_gone()

"""Child processes: they read what they were asked, end with their parent, and are ended in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from persianmind.common.child import end_child, parent_is_gone, read_setting, start_child
from persianmind.common.poll import wait_until

PROBE = "tests.common.child_probe"


def start(**setting: Any) -> subprocess.Popen[bytes]:
    return start_child(PROBE, setting, stdout=subprocess.PIPE)


def said(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_reads_its_setting_from_any_working_folder(tmp_path: Path) -> None:
    setting = {"role": "short", "path": "/a b/'\"c", "text": "سلام\n", "list": [1, None], "code": 5}
    process = start_child(PROBE, setting, stdout=subprocess.PIPE, cwd=tmp_path)
    answer = said(process)
    assert answer["setting"] == {**setting, "parent": os.getpid()} and answer["orphan"] is False
    assert process.wait(60) == 5


def test_a_setting_is_one_json_word() -> None:
    assert read_setting(['{"a": 1}']) == {"a": 1}
    assert not parent_is_gone({})  # started by hand: nobody to depend on
    assert parent_is_gone({"parent": os.getppid() + 1})


@pytest.mark.parametrize(
    ("role", "within_s", "code"), [("obedient", 60, -signal.SIGTERM), ("deaf", 0.2, -signal.SIGKILL)]
)
def test_a_child_is_asked_to_end_then_killed(role: str, within_s: float, code: int) -> None:
    process = start(role=role)
    said(process)
    assert end_child(process, within_s) == code
    assert end_child(process, within_s) == code  # ended already: its code again


@pytest.mark.parametrize("role", ["die-with-parent", "waits-for-parent", "control"])
def test_a_child_whose_parent_is_killed(tmp_path: Path, role: str) -> None:
    """Killed by the kernel with it, or asked to by `parent_is_gone`; the control lives on."""
    pid_file, gone_file = tmp_path / "pid", tmp_path / "gone"
    child = {"role": role, "die_with_parent": role == "die-with-parent", "gone_file": str(gone_file)}
    parent = start(role="parent", child=child, pid_file=str(pid_file))
    wait_until(lambda: pid_file.is_file() and pid_file.read_text(), timeout_s=60, interval_s=0.01)
    pid = int(pid_file.read_text())
    parent.kill()
    parent.wait()
    if role == "control":
        assert not wait_until(lambda: is_gone(pid), timeout_s=0.5)
        os.kill(pid, signal.SIGKILL)
        return
    assert wait_until(lambda: is_gone(pid), timeout_s=60, interval_s=0.01)
    assert gone_file.exists() == (role == "waits-for-parent")

"""Two runs on one folder, and the lock of a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, count, metrics
from tests.support.launch import Launched, launch

pytestmark = pytest.mark.integration
LINE = "two runs on one folder; the stale lock of a dead process"
HOLD = (
    "import pathlib, sys; from persianmind.run.folder import RunFolder, RunLock\n"
    "with RunLock(RunFolder(pathlib.Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
)


def test_a_second_run_is_refused_while_the_first_goes_on(
    fleet: Fleet, fresh: Path, tiny_run: Launched
) -> None:
    fleet.start(fresh, *BARE)
    while len(metrics(fresh)) < 2:
        time.sleep(0.02)
    owner = json.loads((fresh / ".lock").read_text())["pid"]
    second = launch("--recipe", "tiny", "--output", str(fresh), *BARE, ranks=0)
    assert second.code == 2 and len(second.errors) == 1, second.text
    assert f"is in use by pid {owner} on " in second.errors[0]
    first = fleet.finish()
    assert first.code == 0, first.text
    assert_same_run(first, tiny_run)
    count(LINE, 1, 1)


def test_the_lock_of_a_dead_process_is_taken_over(fleet: Fleet, fresh: Path, tiny_run: Launched) -> None:
    command = [sys.executable, "-c", HOLD, str(fresh)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        refused = fleet.run(fresh, *BARE)
        assert 2 in refused.codes and f"is in use by pid {holder.pid} on " in refused.errors[0], refused.text
        assert not metrics(fresh)
        count(LINE, 1, 1)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert json.loads((fresh / ".lock").read_text())["pid"] == holder.pid
    done = fleet.run(fresh, *BARE)
    assert done.code == 0, done.text
    assert_same_run(done, tiny_run)
    assert (fresh / ".lock").read_text() == ""
    count(LINE, 1, 1)

"""`persianmind train` with real ranks, from a folder of its own: a quiet screen, Ctrl-C, the same again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from persianmind.common.poll import wait_until
from persianmind.gpucheck.launch import last_logged_step
from tests.support.launch import CHATTER, ROOT

pytestmark = pytest.mark.integration
# The watts of a CPU that codecarbon does not know would be asked for on the screen.
COMMAND = [sys.executable, "-m", "persianmind", "train", "tiny", "energy.cpu_tdp_w=100", "--gpus", "2"]


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*COMMAND, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as from a terminal
    )


def run(folder: Path, *more: str) -> tuple[int, str, str]:
    process = start(folder, *more)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def test_stopped_gone_on_and_done(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    process = start(tmp_path)
    wait_until(lambda: process.poll() is not None or last_logged_step(folder) >= 5, interval_s=0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 75, out + err
    assert out.startswith("tiny: starting with 2 processes on the CPU, in runs/tiny; ")
    assert err.startswith("persianmind: stopped at step ") and "saved; run the same command" in err
    assert err.count("\n") == 1 and "Traceback" not in out

    code, more_out, more_err = run(tmp_path)
    assert (code, more_err) == (0, ""), more_out + more_err
    assert more_out.startswith("tiny: going on with 2 processes on the CPU")
    assert "resuming from" in more_out
    for shown in (out, more_out):
        assert [word for word in CHATTER if word in shown] == []
    log = (folder / "run.log").read_text(encoding="utf-8")
    assert "WORLD INFO" in log and "resuming from" in log  # the control: it was there to be shown

    code, out, err = run(tmp_path)
    assert code == 0 and "all done; nothing to do" in out
    code, out, err = run(tmp_path, "seed=8")
    assert code == 2 and err.startswith("persianmind: error: runs/tiny belongs to a run with seed=7")
    assert out == ""

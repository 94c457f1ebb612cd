"""The real meter process under a fake NVML library: crashes, dead meters, two ranks."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from persianmind.common import child
from persianmind.energy.ledger import read_ledger
from persianmind.energy.meter import client
from persianmind.energy.meter.client import PROCESS_MODULE
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase
from tests.energy.conftest import WATTS
from tests.energy.ledgers import read_lines
from tests.energy.meters import (
    OPTIONS,
    alive,
    gpu_joules,
    ready_meter,
    start_meter,
    summary_of,
    wait_for,
)


def test_two_ranks_on_one_node_count_once_and_the_lock_is_why(tmp_path: Path, gpus: Path) -> None:
    def counted_ratio(run: Path, second: str) -> float:
        """Joules in the ledger over those that the GPUs used."""
        begun_s = time.monotonic()
        first, other = start_meter(run), start_meter(run, second)
        wait_for(lambda: first.joules() or other.joules(), "reading")
        if second != "box":
            wait_for(lambda: first.joules() and other.joules(), "second reading")
        # The one that waited may take over when the other leaves; what it finds then is not counted again.
        for meter in (first, other):
            meter.stop()
        return sum(gpu_joules(run).values()) / (sum(WATTS) * (time.monotonic() - begun_s))

    assert counted_ratio(tmp_path / "guarded", "box") <= 1.05
    # Two names are two locks: without the guard the same joules count twice.
    assert counted_ratio(tmp_path / "unguarded", "box-again") > 1.4


TRAINING = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from persianmind.energy.meter.client import EnergyMeter
    from persianmind.recipe import Energy
    from persianmind.run.folder import RunFolder
    from persianmind.run.records import Phase
    print(time.monotonic(), flush=True)
    run, first, fork = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3] == "fork"
    meter = EnergyMeter(run, node="box", options=Energy(interval_s=0.2)).start(resumed_step=first - 1)
    if fork and os.fork() == 0:
        time.sleep(60)
    while meter.joules() == 0:
        time.sleep(0.02)
    for step in range(first, 10_000):
        meter.mark(Phase.TRAIN, step, "pretrain")
        print(step, time.monotonic(), flush=True)
        time.sleep(0.05)
""")


def start_training(run: Path, first: int, fork: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAINING, str(run), str(first), "fork" if fork else "plain"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_until(training: subprocess.Popen[str], step: int) -> dict[int, float]:
    """When (monotonic) each step began, up to `step`."""
    assert training.stdout is not None
    begun_s: dict[int, float] = {}
    for text in training.stdout:
        number, at_s = text.split()
        begun_s[int(number)] = float(at_s)
        if int(number) >= step:
            return begun_s
    raise AssertionError("the training process ended early")


def test_kill_9_then_resume_sums_to_an_outside_meter_within_an_interval(tmp_path: Path, gpus: Path) -> None:
    killed_after_s = ended_after_s = trained_s = wasted_s = 0.0
    for first, fork in ((1, True), (11, False)):
        training = start_training(tmp_path, first, fork)
        assert training.stdout is not None
        begun_s = float(training.stdout.readline())  # one monotonic clock for all processes of a machine
        steps = read_until(training, 21)
        children = psutil.Process(training.pid).children()
        sampler = next(process for process in children if PROCESS_MODULE in process.cmdline())
        training.kill()
        killed_s = time.monotonic()
        training.wait()
        training.stdout.close()
        wait_for(lambda s=sampler: not alive(s), "end of the meter after its parent's death")
        killed_after_s, ended_after_s = (
            killed_after_s + killed_s - begun_s,
            (ended_after_s + time.monotonic() - begun_s),
        )
        trained_s += killed_s - steps[first]
        wasted_s += killed_s - steps[11] if first == 1 else 0.0
        for process in children:
            if alive(process):
                process.kill()
    total = sum(gpu_joules(tmp_path).values())
    lost_s = 2 * OPTIONS.interval_s
    assert sum(WATTS) * (killed_after_s - lost_s) <= total <= sum(WATTS) * (ended_after_s + lost_s)
    stops = [line["reason"] for line in read_lines(tmp_path, "box") if line["kind"] == "stop"]
    assert stops == ["the training process is gone"] * 2
    summary = summary_of(tmp_path)
    assert summary["attempts"] == 2
    # Steps 11 to 21 were done twice; a sample spreads its joules evenly over its steps.
    wasted_ratio = summary["wasted_kwh"] / summary["by_stage"]["pretrain"]
    assert wasted_ratio == pytest.approx(wasted_s / trained_s, abs=0.15)


def test_a_meter_that_dies_is_said_once_and_training_goes_on(
    tmp_path: Path, gpus: Path, logged: pytest.LogCaptureFixture
) -> None:
    meter = ready_meter(tmp_path)
    process = meter._process
    assert process is not None
    # Meant for the training: the meter stays.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        process.send_signal(number)
        before = meter.joules()
        wait_for(lambda before=before: meter.joules() > before, "reading after a signal")
    counted = meter.joules()
    process.kill()
    process.wait()
    for step in range(5):
        meter.mark(Phase.TRAIN, step, "pretrain")
    assert meter.joules() >= counted > 0
    meter.stop()
    assert len(logged.messages) == 1
    assert "signal 9" in logged.messages[0] and "training goes on" in logged.messages[0]
    assert any("signal 9" in problem for problem in read_ledger(RunFolder(tmp_path)).problems)


@pytest.mark.timeout(120)
def test_a_meter_that_hangs_blocks_neither_marks_nor_the_end(
    tmp_path: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "STOP_WAIT_S", 0.3)
    meter = start_meter(tmp_path)
    assert meter._process is not None
    meter._process.send_signal(signal.SIGSTOP)
    for step in range(20_000):  # far more than the pipe holds: a write that blocks would stay here
        meter.mark(Phase.TRAIN, step, "pretrain")
    meter.stop()
    assert len(logged.messages) == 1 and "ended early" in logged.messages[0]


def test_a_meter_that_cannot_start_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child.sys, "executable", "/nonexistent/python")
    meter = start_meter(tmp_path)
    meter.mark(Phase.TRAIN, 1, "pretrain")
    assert meter.joules() == 0.0
    meter.stop()
    assert len(logged.messages) == 1 and "could not start" in logged.messages[0]


def test_a_meter_that_cannot_count_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken" / "codecarbon").mkdir(parents=True)
    (tmp_path / "broken" / "codecarbon" / "__init__.py").write_text("raise ImportError('no codecarbon here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    meter = start_meter(tmp_path)
    wait_for(lambda: (meter.joules(), logged.messages)[1], "message")
    meter.mark(Phase.TRAIN, 1, "pretrain")
    meter.stop()
    assert "no codecarbon here" in logged.messages[0]
    assert any("no codecarbon here" in problem for problem in read_ledger(RunFolder(tmp_path)).problems)

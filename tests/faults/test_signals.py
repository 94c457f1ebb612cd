"""SIGTERM wherever it may come: a checkpoint of that step, exit code 75, and an exact resume."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from persianmind.common.errors import RunLockedError
from persianmind.common.poll import wait_until
from persianmind.run.folder import RunFolder, RunLock
from tests.faults.fleet import Fleet
from tests.faults.helpers import (
    BARE,
    assert_same_run,
    count,
    is_long,
    metrics,
    newest_step,
    prepared_copy,
)
from tests.support.launch import ROOT, Launched, command, launch

pytestmark = pytest.mark.integration
LINE = "SIGTERM: to the launcher, one rank, twice, while saving, while evaluating"
ROUNDS = 5 if is_long() else 1
FAULTY = ROOT / "tests" / "faults" / "faulty_train.py"


@pytest.mark.more
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_one_rank_while_saving_and_while_evaluating(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched, seed: int
) -> None:
    """Three signals to one run; each stops it at the step the ranks agree on, saved."""
    draw = random.Random(seed)
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    step = draw.randrange(5, 8)
    faults = [f"term:{draw.randrange(2)}:{step}", f"term-save:{draw.randrange(2)}:12:written"]
    faults += [f"term-eval:{draw.randrange(2)}:16"]
    expected = [(step, step + 1), (12, 16), (17, 17)]
    for fault, (least, most) in zip(faults, expected, strict=True):
        stopped = fleet.run(run, *BARE, fault=fault)
        assert stopped.code == 75, stopped.text
        assert set(stopped.codes) == {75}
        reached = newest_step(run)
        # Agreed on at the start of a step: it is the one under way or the next.
        assert least <= reached <= most and len(metrics(run)) == reached, (fault, reached)
        assert any(f"stopped at step {reached}, saved" in line for line in stopped.errors)
        count(LINE, 1, 1)
    again = fleet.run(run, *BARE)
    assert again.code == 0, again.text
    assert_same_run(again, tiny_run)


@pytest.mark.more
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_second_signal_ends_at_once(fleet: Fleet, tmp_path: Path, tiny_run: Launched, seed: int) -> None:
    step, rank = random.Random(seed).randrange(6, 28), seed % 2
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    stopped = fleet.run(run, *BARE, fault=f"term-twice:{rank}:{step}")
    assert stopped.codes[rank] == 128 + signal.SIGTERM
    assert len(metrics(run)) == step - 1  # not even this step was done
    assert newest_step(run) < step
    again = fleet.run(run, *BARE)
    assert again.code == 0, again.text
    assert_same_run(again, tiny_run)
    count(LINE, 1, 1)


@pytest.mark.more
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_launcher_is_told_to_stop(tmp_path: Path, tiny_run: Launched, fleet: Fleet, seed: int) -> None:
    """`deepspeed` dies of a SIGTERM and tells nobody; its ranks notice, save and end. In odd rounds it is
    its second process that gets the signal, passes it on and ends with code 1."""
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    arguments = ["--recipe", "tiny", "--output", str(run), *BARE]
    with subprocess.Popen(
        command(arguments, ranks=2),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    ) as launcher:
        _wait_for(lambda: len(metrics(run)) >= 2 + seed)
        second = psutil.Process(launcher.pid).children()[0]
        os.kill(second.pid if seed % 2 else launcher.pid, signal.SIGTERM)
        assert launcher.wait(60) == (1 if seed % 2 else -signal.SIGTERM)
    _wait_for(lambda: _is_free(run))
    reached = len(metrics(run))
    assert reached < 30 and newest_step(run) == reached
    again = fleet.run(run, *BARE)
    assert again.code == 0 and f"at step {reached}" in again.text, again.text
    assert_same_run(again, tiny_run)
    count(LINE, 1, 1)


def test_exit_code_75_comes_through_the_launcher(tmp_path: Path, tiny_run: Launched) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run", "train.self_tests=false")
    arguments = ["--recipe", "tiny", "--output", str(run), *BARE, "train.self_tests=false"]
    stopped = launch(*arguments, ranks=2, script=FAULTY, environment={"FAULT": "term:1:2"})
    assert stopped.code == 75, stopped.text
    assert newest_step(run) in (2, 3)


def _wait_for(event: Callable[[], bool]) -> None:
    assert wait_until(event, timeout_s=120, interval_s=0.02)


def _is_free(run: Path) -> bool:
    try:
        with RunLock(RunFolder(run)):
            return True
    except RunLockedError:
        return False

"""SIGTERM and SIGHUP wherever they may come: a checkpoint of that step, exit code 75, an exact resume."""

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
from persianmind.common.lock import read_owner
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
LINE = "SIGTERM, SIGHUP: to the launcher, one rank, twice, in every phase"
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
@pytest.mark.parametrize("rank", [0, 1])
def test_in_every_other_phase_a_signal_ends_the_run_and_the_same_command_goes_on(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched, rank: int
) -> None:
    """While it is prepared, while it starts, at its end; nothing is lost there."""
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    phases = ["term-prepare", "term-start", *(["term-export"] if rank == 0 else [])]
    for phase in phases:
        stopped = fleet.run(run, "energy.enabled=false", fault=f"{phase}:{rank}:0")
        assert stopped.codes[rank] == 75, stopped.text
        told = [line for line in stopped.errors if "stopped; what is whole is kept" in line]
        assert len(told) == (rank == 0), stopped.text  # which says it for all; a launcher stops it too
        assert len(metrics(run)) == (30 if phase == "term-export" else 0)
        assert not (run / "export").exists() and _is_free(run)
        count(LINE, 1, 1)
    again = fleet.run(run, "energy.enabled=false")
    assert again.code == 0 and again.results["finished"], again.text
    assert_same_run(again, tiny_run)


@pytest.mark.more
def test_a_terminal_that_hangs_up_stops_the_run_saved_unless_it_was_told_to_stay(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    stopped = fleet.run(run, *BARE, fault="hup:0:5;hup:1:5")
    assert set(stopped.codes) == {75}, stopped.text
    reached = newest_step(run)
    assert reached in (5, 6) and len(metrics(run)) == reached
    again = fleet.run(run, *BARE, fault="hup:0:9;hup:1:9", ignored=[signal.SIGHUP])
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


@pytest.mark.more
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_or_job_system_signals_every_process_at_once(
    tmp_path: Path, tiny_run: Launched, number: int
) -> None:
    """The launcher passes on its own beside: a rank gets the request twice, and it is one."""
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    arguments = ["--recipe", "tiny", "--output", str(run), *BARE, "checkpoint.every_steps=99"]
    with subprocess.Popen(
        command(arguments, ranks=2),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as launcher:
        _wait_for(lambda: len(metrics(run)) >= 2)
        os.killpg(launcher.pid, number)
        launcher.wait(60)
    _wait_for(lambda: _is_free(run))
    reached = len(metrics(run))
    assert 2 <= reached < 30 and newest_step(run) == reached
    count(LINE, 1, 1)


@pytest.mark.more
@pytest.mark.parametrize("killed", ["deepspeed", "launch.py"])
def test_launchers_that_are_killed_in_preparation_leave_no_rank_behind(
    tmp_path: Path, tiny_run: Launched, fleet: Fleet, killed: str
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    RunFolder(run).prepared.unlink()  # so that rank 1 waits for rank 0
    environment = {**os.environ, "FAULT": "stay-prepare:0:0", "PYTHONPATH": str(ROOT)}
    arguments = ["--recipe", "tiny", "--output", str(run), "export.enabled=false"]
    with subprocess.Popen(
        command(arguments, ranks=2, script=FAULTY), env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    ) as launcher:
        _wait_for(lambda: (run / ".lock").is_file() and read_owner(run / ".lock") is not None)
        second = psutil.Process(launcher.pid).children()[0]
        _wait_for(lambda: len(second.children(recursive=True)) > 2)
        below = second.children(recursive=True)  # ranks, and the energy meter
        os.kill(launcher.pid if killed == "deepspeed" else second.pid, signal.SIGKILL)
        launcher.wait(60)
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive and _is_free(run)
    again = fleet.run(run, *BARE)
    assert again.code == 0, again.text
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

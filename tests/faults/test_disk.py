"""A full or failing disk in a save of real ranks: the run ends and says why, the older checkpoint stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.errors import DiskError
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, count, is_long, newest_step, prepared_copy
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
# Fault, its rank and detail, and what the line must name. The store's own five are in tests/checkpoint.
SHORT = [
    ("limit", 1, "100000", "File too large"),
    ("fsync", 0, "", "Input/output error"),
    ("room", 0, "", "GB free and a checkpoint takes about"),
]
LONG = [
    ("limit", 0, "100", "File too large"),
    ("limit", 0, "300000", "File too large"),
    ("limit", 1, "4000", "File too large"),
    ("limit", 1, "360000", "File too large"),
    ("fsync", 1, "", "Input/output error"),
    ("rename", 0, "", "Input/output error"),
    ("manifest", 0, "", "Input/output error"),
]
FAULTS = SHORT + (LONG if is_long() else [])


def test_a_save_that_fails_ends_the_run_and_the_older_checkpoint_takes_it_on(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    step = 1
    for kind, rank, detail, named in FAULTS:
        every = ["checkpoint.every_steps=1"]
        ended = fleet.run(run, *BARE, *every, fault=f"{kind}:{rank}:{step + 1}:{detail}")
        assert set(ended.codes) == {5}, ended.text
        assert f"the checkpoint of step {step + 1} was not saved (older ones are untouched): " in ended.text
        assert all(f"rank {rank}: " in line and named in line for line in ended.errors), ended.errors
        assert newest_step(run) == step
        assert not list((run / "checkpoints").glob(".tmp-*"))
        step += 1
        count("disk full and write errors while saving", 1, 1)
        # The same command again goes on where the older one stands.
    again = fleet.run(run, *BARE)
    assert again.code == 0 and f"at step {step - 1}" in again.text, again.text
    assert_same_run(again, tiny_run)


def test_a_log_that_no_longer_fits_ends_the_run_with_one_line_and_loses_nothing_that_was_saved(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    ended = fleet.run(run, *BARE, "checkpoint.every_steps=2", fault="log-full:0:6")
    assert ended.codes[0] == ended.code == DiskError.exit_code, ended.text
    (line,) = ended.errors
    assert line.startswith(f"persianmind: error: {run / 'metrics.jsonl'}: file too large; make room"), line
    assert "Traceback" not in ended.text, "nor of the rank that lost its peer"
    assert newest_step(run) == 4 and len(ended.metrics) == 5
    again = fleet.run(run, *BARE)
    assert again.code == 0 and "at step 4" in again.text, again.text
    assert_same_run(again, tiny_run)


def test_control_without_the_clearing_leftovers_stay(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    ended = fleet.run(run, *BARE, fault="limit:1:4:100000;leftovers:0:4")
    assert set(ended.codes) == {5}
    assert list((run / "checkpoints").glob(".tmp-*"))

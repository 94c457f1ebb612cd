"""Numbers that are not finite, spikes and plateaus: all ranks agree, the samples are named; one kill through
DeepSpeed's own launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, count, losses, newest_step, prepared_copy
from tests.support.launch import ROOT, Launched, launch

pytestmark = pytest.mark.integration
FAULTY = ROOT / "tests" / "faults" / "faulty_train.py"
LINE = "NaN or Inf in one rank's gradient, data, loss; a spike"
# Step -> what happens to one rank's numbers at it.
BAD_STEPS = {
    6: "nan:1",
    9: "inf:0",
    12: "grad-nan:0",
    15: "grad-inf:1",
    19: "data-nan:1",
    22: "data-inf:0",
}


def test_kill_9_through_the_launcher_then_the_same_command(fresh: Path, tiny_run: Launched) -> None:
    arguments = ["--recipe", "tiny", "--output", str(fresh), *BARE]
    killed = launch(*arguments, ranks=2, script=FAULTY, environment={"FAULT": "kill:1:15"})
    assert killed.code != 0
    assert not killed.shared_buffers
    again = launch(*arguments, ranks=2)
    assert again.code == 0, again.text
    assert "resuming from" in again.text
    assert_same_run(again, tiny_run)
    assert again.results["evaluation"] == tiny_run.results["evaluation"]


def test_bad_numbers_on_one_rank_are_skipped_by_all_named_and_the_run_goes_on(
    fleet: Fleet, fresh: Path, tiny_run: Launched
) -> None:
    fault = ";".join(f"{kind}:{step}" for step, kind in BAD_STEPS.items())
    done = fleet.run(fresh, *BARE, fault=fault)
    assert done.code == 0, done.text
    assert [line["step"] for line in done.metrics if line["skipped"]] == list(BAD_STEPS)
    first = {line["step"]: line["first_sample"] for line in done.metrics}
    for step in BAD_STEPS:
        samples = f"(samples {first[step]} to {first[step] + 3})"
        assert f"step {step}: loss or gradient not finite, step skipped {samples}" in done.text
        count(LINE, 1, 1)
    ours, theirs = losses(done), losses(tiny_run)
    assert [ours[step] for step in range(1, 6)] == [theirs[step] for step in range(1, 6)]
    assert ours[7] != theirs[7] and max(line["loss"] for line in done.metrics[22:]) < 10


@pytest.mark.more
def test_past_the_budget_the_run_ends_with_the_checkpoint_kept(fleet: Fleet, fresh: Path) -> None:
    ended = fleet.run(fresh, *BARE, fault="nan-on:1:6")  # the budget is 3 in a row
    assert set(ended.codes) == {4}
    assert any("not finite" in line and "samples" in line for line in ended.errors), ended.text
    lines = [json.loads(line) for line in (fresh / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["skipped"]] == [6, 7, 8, 9]
    assert [path.name for path in (fresh / "checkpoints").glob("step-*")] == ["step-4"]
    count(LINE, 1, 1)


@pytest.mark.more
def test_an_evaluation_that_is_not_finite_is_one_line_on_all_ranks(fleet: Fleet, fresh: Path) -> None:
    """What one rank reads turns to NaN with the last step of a stage, and stays so in the evaluation."""
    ended = fleet.run(fresh, *BARE, fault="data-nan:1:16")
    assert set(ended.codes) == {4}, ended.text
    assert all("evaluate pretrain: the loss on held-out fa text is not finite" in e for e in ended.errors)
    assert newest_step(fresh) == 12


@pytest.mark.more
def test_a_spike_on_one_rank_is_skipped_where_the_rule_is_on(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    """100 times the loss, the window filled by the eight steps before; the rule is an option."""
    rule = ["train.spike_sigma=20", "train.spike_window=8"]
    run = prepared_copy(tiny_run.run, tmp_path / "run", *rule)
    done = fleet.run(run, *BARE, *rule, fault="spike:1:10")
    assert done.code == 0, done.text
    assert [line["step"] for line in done.metrics if line["skip_reason"] == "spike"] == [10]
    assert [line["step"] for line in done.metrics if line["skipped"]] == [10]
    assert "is a spike, step skipped (samples 36 to 39)" in done.text
    count(LINE, 1, 1)


@pytest.mark.more
def test_control_without_the_rule_a_spike_is_applied(fleet: Fleet, fresh: Path) -> None:
    done = fleet.run(fresh, *BARE, fault="spike:1:10")
    assert done.code == 0, done.text
    assert not any(line["skipped"] for line in done.metrics)


@pytest.mark.more
def test_a_stage_that_ends_on_its_plateau_is_resumed_as_it_ended(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    early = ["stages.0.plateau_steps=2", "stages.0.plateau_min_gain=0.99"]
    run = prepared_copy(tiny_run.run, tmp_path / "run", *early)
    killed = fleet.run(run, *BARE, *early, fault="kill:0:10")
    assert killed.code != 0 and "stage pretrain ends at step 4" in killed.text
    again = fleet.run(run, *BARE, *early)
    assert again.code == 0, again.text
    stages = [line["stage"] for line in again.metrics]
    assert stages == ["pretrain"] * 4 + ["instruct-1"] * 7 + ["instruct-2"] * 7
    assert [line["first_sample"] for line in again.metrics[4:11]] == [0, 4, 8, 12, 16, 20, 24]
    assert list(dict.fromkeys(score["stage"] for score in again.results["evaluation"]))[1] == "pretrain"

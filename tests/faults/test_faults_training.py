"""Faults in the training loop through the real launcher: what was committed is kept, resume is to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.launching import ROOT, Launched, launch

pytestmark = pytest.mark.slow
FAULTY = ROOT / "tests" / "faults" / "faulty_train.py"
PREPARED = ("data", "vocab", "prepared.json", "recipe.yaml")


@pytest.fixture
def fresh(tmp_path: Path, tiny_run: Launched) -> Path:
    """A run folder in which everything is prepared and nothing trained."""
    run = tmp_path / "run"
    run.mkdir()
    for name in PREPARED:
        source = tiny_run.run / name
        if source.is_dir():
            shutil.copytree(source, run / name)
        else:
            shutil.copy2(source, run / name)
    return run


def _faulty(run: Path, fault: str, *overrides: str, ranks: int = 2) -> Launched:
    arguments = ["--recipe", "tiny", "--output", str(run), *overrides]
    return launch(*arguments, ranks=ranks, script=FAULTY, environment={"FAULT": fault})


def _losses(launched: Launched) -> dict[int, str]:
    return {line["step"]: line["loss_hex"] for line in launched.metrics}


@pytest.mark.parametrize(("rank", "step"), [(0, 7), (1, 15)])
def test_kill_9_then_the_same_command_gives_every_loss_to_the_bit(
    fresh: Path, tiny_run: Launched, rank: int, step: int
) -> None:
    killed = _faulty(fresh, f"kill:{rank}:{step}")
    assert killed.code != 0
    assert not killed.shared_buffers
    again = launch("--recipe", "tiny", "--output", str(fresh), ranks=2)
    assert again.code == 0, again.text
    assert "resuming from" in again.text
    assert _losses(again) == _losses(tiny_run)
    samples = [(line["stage"], line["first_sample"]) for line in again.metrics]
    assert samples == [(line["stage"], line["first_sample"]) for line in tiny_run.metrics]
    assert again.results["perplexity"] == tiny_run.results["perplexity"]


def test_control_another_start_gives_other_losses(fresh: Path, tiny_run: Launched) -> None:
    """What the comparison above can see: one changed rate from the start changes the losses."""
    shutil.rmtree(fresh)
    other = launch(
        "--recipe",
        "tiny",
        "--output",
        str(fresh),
        "train.learning_rate=4e-3",
        ranks=2,
    )
    assert other.code == 0, other.text
    ours, theirs = _losses(other), _losses(tiny_run)
    assert ours[1] == theirs[1] and ours[3] != theirs[3]


def test_sigterm_saves_and_the_same_command_goes_on(fresh: Path, tiny_run: Launched) -> None:
    stopped = _faulty(fresh, "term:1:6")
    assert stopped.code == 75, stopped.text
    folders = sorted((fresh / "checkpoints").glob("step-*"))
    # The signal came when the ranks had agreed on step 6 already: they stop together at the next one.
    assert json.loads((folders[-1] / "manifest.json").read_text())["step"] == 7
    again = launch("--recipe", "tiny", "--output", str(fresh), ranks=2)
    assert again.code == 0, again.text
    assert _losses(again) == _losses(tiny_run)


def test_another_number_of_ranks_goes_on_with_the_same_samples(fresh: Path, tiny_run: Launched) -> None:
    assert _faulty(fresh, "kill:0:10").code != 0
    again = launch("--recipe", "tiny", "--output", str(fresh), ranks=0)
    assert again.code == 0, again.text
    assert "resharded from 2 to 1 ranks" in again.text
    for ours, theirs in zip(again.metrics, tiny_run.metrics, strict=True):
        assert ours["first_sample"] == theirs["first_sample"]
        assert ours["target_tokens"] == theirs["target_tokens"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_nan_on_one_rank_is_skipped_by_all_then_ends_the_run_with_the_checkpoint_kept(fresh: Path) -> None:
    ended = _faulty(fresh, "nan-on:1:6")  # the budget is 3 in a row
    assert ended.code != 0
    assert any("not finite" in line and "samples" in line for line in ended.errors), ended.text
    lines = [json.loads(line) for line in (fresh / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if not line["applied"]] == [6, 7, 8, 9]
    assert [path.name for path in (fresh / "checkpoints").glob("step-*")] == ["step-4"]


@pytest.mark.parametrize("kind", ["inf", "spike"])
def test_one_bad_step_is_left_out_named_and_the_run_goes_on(
    fresh: Path, tiny_run: Launched, kind: str
) -> None:
    """A spike of 100 on one rank, its window filled by the eight steps before; the rule is an option."""
    rule = ["train.spike_sigma=20", "train.spike_window=8"] if kind == "spike" else []
    if rule:
        shutil.rmtree(fresh)
    done = _faulty(fresh, f"{kind}:1:10", *rule)
    assert done.code == 0, done.text
    assert [line["step"] for line in done.metrics if not line["applied"]] == [10]
    assert [line["spike"] for line in done.metrics if not line["applied"]] == [kind == "spike"]
    assert "step 10: " in done.text and "(samples 36 to 39)" in done.text
    ours, theirs = _losses(done), _losses(tiny_run)
    assert [ours[step] for step in range(1, 10)] == [theirs[step] for step in range(1, 10)]
    assert ours[11] != theirs[11] and max(line["loss"] for line in done.metrics[10:]) < 10


def test_control_without_the_rule_a_spike_is_applied(fresh: Path) -> None:
    done = _faulty(fresh, "spike:1:10")
    assert done.code == 0, done.text
    assert all(line["applied"] for line in done.metrics)


def test_a_stage_that_ends_on_its_plateau_is_resumed_as_it_ended(fresh: Path) -> None:
    shutil.rmtree(fresh)
    early = ["stages.0.plateau_steps=2", "stages.0.plateau_min_gain=0.99"]
    killed = _faulty(fresh, "kill:0:10", *early)
    assert killed.code != 0 and "stage pretrain ends at step 4" in killed.text
    again = launch("--recipe", "tiny", "--output", str(fresh), *early, ranks=2)
    assert again.code == 0, again.text
    stages = [line["stage"] for line in again.metrics]
    assert stages == ["pretrain"] * 4 + ["instruct-1"] * 7 + ["instruct-2"] * 7
    assert [line["first_sample"] for line in again.metrics[4:11]] == [0, 4, 8, 12, 16, 20, 24]
    assert [row["stage"] for row in again.results["perplexity"]][1] == "pretrain"

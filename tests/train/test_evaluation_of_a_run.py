"""What a run measures of itself, through the real launcher on two ranks: guard, best checkpoint, suites, new
tokens, loss by source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from persianmind.report.curves import held_out_points
from persianmind.report.read import read_run
from persianmind.run.folder import RunFolder
from tests.support.launch import Launched, launch

pytestmark = pytest.mark.integration
SHORT = ["stages.0.tokens=8192", "stages.1.tokens=2048", "stages.2.tokens=2048", "evaluate.prompts=[]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    root = tmp_path_factory.mktemp("measured")
    rows = [{"question": f"{a} + 1 =", "candidates": [str(a + 1), "x"], "answer": 1} for a in range(6)]
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    launched = launch(
        "--recipe", "tiny", "--output", str(root / "run"), *SHORT, f"evaluate.suites=[{root / 'sums.jsonl'}]",
        "evaluate.every_steps=3", "evaluate.suites_within_stages=true", "evaluate.best_metric=fa",
        "evaluate.forgetting={every_steps: 2, max_increase: 1.0, action: stop}",
        "stages.1.tokens=null", "stages.1.steps=3", "train.warmup_steps=2", "train.schedule=constant",
        ranks=2,
    )  # fmt: skip
    assert launched.code == 0, launched.text
    return launched


def test_scores_stand_with_their_intervals(run: Launched) -> None:
    for one in run.results["evaluation"]:
        assert one["ci_low"] < one["bits_per_byte"] < one["ci_high"] and one["n_documents"] > 1
    within = run.results["within_stages"]
    assert [one["step"] for one in within if one["language"] == "fa"] == [3, 6, 9, 12]
    assert "forgetting: en bits per byte" in run.text


def test_a_stage_in_steps_and_a_constant_rate_after_warm_up(run: Launched) -> None:
    steps = [one for one in run.metrics if one["stage"] == "instruct-1"]
    assert len(steps) == 3
    first, second, third = (one["learning_rate"] for one in steps)
    assert 0 < first < second < third and third == 5e-3
    assert {one["learning_rate"] for one in run.metrics if one["stage_step"] > 2} == {5e-3}


def test_held_out_scores_go_to_tensorboard_and_the_report(run: Launched) -> None:
    events = EventAccumulator(str(run.run / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("held_out/fa")}
    scores = {
        one["step"]: one["bits_per_byte"] for one in run.results["within_stages"] if one["language"] == "fa"
    }
    assert 0 in shown and {*scores} < {*shown}
    for step, bits in scores.items():
        assert shown[step] == pytest.approx(bits, rel=1e-6)
    points = dict(held_out_points(read_run(RunFolder(run.run)), "fa"))
    assert scores.items() <= points.items()


def test_suites_are_scored_by_stage_and_within(run: Launched) -> None:
    letters = [one for one in run.results["results"] if one["metric"] == "accuracy_letter"]
    places = [(one["stage"], one["step"]) for one in letters]
    assert places[0] == ("base", None) and ("pretrain", 3) in places and ("instruct-2", None) in places
    assert all(one["n"] == 6 and one["chance"] == 0.5 and one["joules"] is not None for one in letters)
    assert (run.run / "evaluation" / "items" / "pretrain" / "sums" / "sums.jsonl").is_file()
    assert "sums/sums: accuracy_letter" in run.text


def test_the_best_checkpoint_is_kept(run: Launched) -> None:
    best = run.results["best"]
    assert best["metric"] == "fa"
    lowest = min((one["bits_per_byte"], one["step"] or 0)
                 for one in [*run.results["evaluation"], *run.results["within_stages"]]
                 if one["language"] == "fa" and one["stage"] != "base")  # fmt: skip
    assert best["value"] == lowest[0]
    assert (run.run / "checkpoints" / f"step-{best['step']}").is_dir()


def test_new_tokens_are_counted_as_they_were_trained_on(run: Launched) -> None:
    """Against the shards themselves: with one pass of less than a source, each sample is another sequence."""
    found = run.results["new_tokens"]
    assert [one["stage"] for one in found] == ["pretrain", "instruct-1", "instruct-2"]
    lines = [
        json.loads(line) for line in (run.run / found[0]["file"]).read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == found[0]["n"] == 400
    assert sum(line["seen"] > 0 for line in lines) == found[0]["seen"] > 100
    assert found[0]["dead"] < found[0]["n"] - found[0]["seen"] + 1 and 0 < found[0]["loss_ratio"] < 1
    seen = [line["seen"] for line in lines]
    moved = [line["moved"] for line in lines]
    unseen = [m for m, s in zip(moved, seen, strict=True) if s == 0]
    often = [m for m, s in zip(moved, seen, strict=True) if s > 50]
    assert max(unseen, default=0.0) < 1e-6 < min(often)
    assert all(len(line["nearest"]) == 3 for line in lines)


def test_loss_by_source_adds_up_to_the_loss(run: Launched) -> None:
    for line in run.metrics:
        by_source = line["loss_by_source"]
        assert by_source and min(by_source.values()) - 1e-6 <= line["loss"] <= max(by_source.values()) + 1e-6
        assert set(line["bits_per_byte_by_language"]) <= {"fa", "en"}
    first = run.metrics[0]
    assert set(first["bits_per_byte_by_source"]) == set(first["loss_by_source"])


def test_a_planted_forgetting_stops_and_within_the_bound_does_not(tmp_path: Path) -> None:
    """A rate that spoils every language: the guard stops it, saved; a bound that it stays within does not."""
    rates = ["train.learning_rate=3.0", "train.embedding_learning_rate=3.0", "train.max_grad_norm=1000"]
    spoiled = [*SHORT, *rates,
               "export.enabled=false", "stages.0.sources={poems: 1.0}"]  # fmt: skip
    guard = "evaluate.forgetting={every_steps: 2, max_increase: %s, action: stop}"
    stopped = launch("--recipe", "tiny", "--output", str(tmp_path / "a"), *spoiled, guard % 0.02, ranks=2)
    assert stopped.code == 10, stopped.text
    lines = [line for line in stopped.text.splitlines() if "persianmind: error" in line]
    assert len(lines) == 1 and "more than the 2.0% allowed; stopped and saved" in lines[0]
    step = max(int(path.name.split("-")[1]) for path in (tmp_path / "a" / "checkpoints").glob("step-*"))
    assert f"at step {step} " in lines[0]
    allowed = launch("--recipe", "tiny", "--output", str(tmp_path / "b"), *SHORT, "export.enabled=false",
                     guard % 1.0, ranks=2)  # fmt: skip
    assert allowed.code == 0, allowed.text

"""The estimate before step 1: arithmetic, what it counts, and the warning of a budget that will not do."""

from __future__ import annotations

import pytest

from persianmind.energy.budget import Budget
from persianmind.estimate.phases import EXPORT_S, self_tests_s
from persianmind.estimate.time import FirstScores, estimate_run, eta_s, remaining_phases, step_over_forward
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe

# On two cores: 8,014 tokens of held-out text in 25 s, two samples of 32 tokens in 8 s, a model of 277 MB.
DEMO = FirstScores(
    forward_s=25.0,
    forward_tokens=8014,
    sample_s=8.0,
    suites_s=0.0,
    stage_tokens=4274,
    weight_bytes=277_000_000,
    ranks=2,
    elapsed_s=130.0,
    layers=30,
)

TINY_STEP = DEMO_STEP = 1024  # tokens


def tiny(*overrides: str) -> Recipe:
    """1,024 tokens per step, every layer recomputed."""
    return load_recipe("tiny", overrides)


def scores(forward_s: float) -> FirstScores:
    return FirstScores(forward_s, 1000, 0.0, 0.0, 0, 0, 2, 60.0, 2)


def test_lines_say_what_is_to_come_and_the_whole() -> None:
    lines = list(estimate_run(tiny(), 30, 30 * TINY_STEP, scores(10.0), 120.0, Budget(None)))
    start, _, rest = lines[0].partition(", and ")
    assert start.startswith("estimate: about 16 min to go, until ")
    assert rest.startswith("17 min in all: 30 steps 15 min, ")  # 921.6 s
    assert lines[1:] == ["estimate: 31.6 Wh to go at 120 W"]


def test_a_budget_that_will_not_do_is_said_before_step_1() -> None:
    lines = list(estimate_run(tiny(), 30, 30 * TINY_STEP, scores(10.0), 120.0, Budget(0.01)))
    assert len(lines) == 3 and "save and stop at about 3" in lines[2]


def test_without_a_meter_only_the_time_is_said() -> None:
    lines = list(estimate_run(tiny(), 30, 30 * TINY_STEP, scores(0.1), None, Budget(None)))
    assert lines[1:] == ["estimate: energy is not known yet"]


@pytest.mark.parametrize(
    ("setting", "passes"), [("off", 2.0), ("selective", 2.0), ("full", 3.0), ("{full_layers: 2}", 2.25)]
)
def test_recomputed_layers_go_forward_twice(setting: str, passes: float) -> None:
    assert step_over_forward(tiny(f"train.gradient_checkpointing={setting}"), 8) == passes


def test_layers_below_the_lowest_adapter_go_forward_alone_where_no_embedding_is_trained() -> None:
    """Six of eight layers go backward; of four layers recomputed whole, from the first, two need it."""
    upper = ["adapter.layers=[2-]", "train.gradient_checkpointing={full_layers: 4}"]
    assert step_over_forward(tiny(*upper), 8) == 2.5
    assert step_over_forward(tiny(*upper, "vocab.new_tokens=0"), 8) == 1 + 6 / 8 + 2 / 8
    assert step_over_forward(tiny(*upper, "vocab.new_tokens=0", "vocab.train_embeddings=all"), 8) == 2.5


def test_evaluations_within_stages_are_counted() -> None:
    """The demo scores 4,274 tokens at 25 s for 8,014 in 13.8 s; every 10 of 30 steps that is three times
    more."""
    within = load_recipe("demo", ["evaluate.every_steps=10"])
    usual, more = (remaining_phases(one, 30, 30 * TINY_STEP, DEMO) for one in (load_recipe("demo"), within))
    assert more.evaluation_s - usual.evaluation_s == pytest.approx(3 * 13.8, rel=0.01)
    assert more.steps_s == usual.steps_s and more.export_s == usual.export_s


def test_eta_grows_with_tokens_and_falls_with_speed() -> None:
    recipe = tiny()
    assert eta_s(recipe, 2, 60 * TINY_STEP, 10.0, 1000) == pytest.approx(1843.2)
    assert eta_s(recipe, 2, 30 * TINY_STEP, 10.0, 1000) == pytest.approx(921.6)
    assert eta_s(recipe, 2, 30 * TINY_STEP, 5.0, 1000) == pytest.approx(460.8)


def test_the_demo_takes_what_it_was_measured_to_take() -> None:
    """A demo run on two cores: 213 s of steps, 67 s of evaluation and samples after the base's, 47 s of
    export."""
    phases = remaining_phases(load_recipe("demo"), 30, 30 * DEMO_STEP, DEMO)
    assert phases.steps_s == pytest.approx(213, rel=0.25)
    assert phases.evaluation_s + phases.samples_s == pytest.approx(67, rel=0.25)
    assert phases.total_s == pytest.approx(213 + 67 + 47, rel=0.25)
    assert phases.total_s > 1.4 * phases.steps_s  # the steps alone would be a third short


def test_what_a_recipe_leaves_out_takes_no_time() -> None:
    recipe = load_recipe(
        "demo", ["export.enabled=false", "evaluate.prompts=[]", "checkpoint.every_steps=1000"]
    )
    phases = remaining_phases(recipe, 30, 30 * DEMO_STEP, DEMO)
    assert phases.export_s == EXPORT_S and phases.checkpoints_s < 1.0
    shorter = remaining_phases(load_recipe("demo", ["evaluate.prompts=[]"]), 30, 30 * DEMO_STEP, DEMO)
    assert shorter.steps_s == phases.steps_s


def test_self_tests_follow_the_sample_and_the_micro_batch() -> None:
    # 256 tokens ten times forward; four micro-batches of 512 tokens as steps of four forward passes.
    assert self_tests_s(1e-3, 256, 512, 4.0) == pytest.approx(2.0 + 2.56 + 8.192)
    assert self_tests_s(1e-3, 256, 4096, 4.0) == pytest.approx(2.0 + 2.56 + 8 * 8.192)

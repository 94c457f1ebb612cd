"""The estimate before step 1: arithmetic, and the warning of a budget that will not do."""

from __future__ import annotations

import pytest

from persianmind.energy.budget import Budget
from persianmind.estimate.time import estimate_run, eta_s, step_over_forward
from persianmind.recipe.loading import load_recipe


def test_time_and_energy_follow_from_the_forward_pass() -> None:
    recipe = load_recipe("tiny")  # 1,024 tokens per step, every layer recomputed
    lines = list(estimate_run(recipe, 10.0, 1000, 30, 120.0, Budget(None)))
    assert lines == ["estimate: about 15 min for 30 steps and 0.0307 kWh at 120 W"]  # 921.6 s


def test_a_budget_that_will_not_do_is_said_before_step_1() -> None:
    lines = list(estimate_run(load_recipe("tiny"), 10.0, 1000, 30, 120.0, Budget(0.01)))
    assert len(lines) == 2 and "save and stop at about 33%" in lines[1]


@pytest.mark.parametrize(("setting", "passes"), [("off", 2.0), ("full", 3.0), ("4", 2.25)])
def test_recomputed_layers_go_forward_twice(setting: str, passes: float) -> None:
    assert step_over_forward(load_recipe("tiny", [f"train.gradient_checkpointing={setting}"])) == passes


def test_without_a_meter_only_the_time_is_said() -> None:
    lines = list(estimate_run(load_recipe("tiny"), 0.1, 1000, 30, None, Budget(None)))
    assert lines == ["estimate: about 9 s for 30 steps; energy is not known yet"]


def test_eta_grows_with_steps_and_falls_with_speed() -> None:
    recipe = load_recipe("tiny")
    assert eta_s(recipe, 60, 10.0, 1000) == 2 * eta_s(recipe, 30, 10.0, 1000) == pytest.approx(1843.2)
    assert eta_s(recipe, 30, 5.0, 1000) == pytest.approx(460.8)

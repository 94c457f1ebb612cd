"""Spikes and plateaus: decided from the numbers alone, and the same after a resume."""

from __future__ import annotations

import json
import math

import pytest

from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.train.history import History
from persianmind.train.stages import plan_stages

ROWS = {"poems": 10, "messages": 5, "english": 5, "translate": 5, "interpret": 5}


def _recipe(*overrides: str) -> Recipe:
    return load_recipe("tiny", list(overrides))


def _history(recipe: Recipe) -> History:
    return History(recipe.train, recipe.stages)


def test_a_spike_stands_out_of_a_full_window_only() -> None:
    recipe = _recipe("train.spike_sigma=6", "train.spike_window=8")
    history = _history(recipe)
    for step in range(8):
        assert not history.is_spike(1e9, 1e9)  # the window is not full yet
        history.add(2.0 + 0.01 * (step % 2), 1.0 + 0.1 * (step % 2))
    assert not history.is_spike(2.02, 1.2)
    assert history.is_spike(200.0, 1.0) and history.is_spike(2.0, 100.0)


def test_a_lasting_change_of_level_ends_by_itself() -> None:
    history = _history(_recipe("train.spike_sigma=6", "train.spike_window=8"))
    for step in range(8):
        history.add(2.0 + 0.01 * (step % 2), 1.0)
    spikes = 0
    while history.is_spike(5.0, 1.0):
        spikes += 1
        history.add(5.0, 1.0)
    assert 1 <= spikes < 8


def test_without_the_option_nothing_is_a_spike() -> None:
    history = _history(_recipe("train.spike_window=2"))
    for _ in range(4):
        history.add(1.0, 1.0)
    assert not history.watches_spikes and not history.is_spike(1e9, 1e9)


def test_numbers_that_are_not_finite_are_not_remembered() -> None:
    history = _history(_recipe())
    for loss, norm in ((math.nan, 1.0), (1.0, math.inf)):
        history.add(loss, norm)
    assert not history.losses and not history.grad_norms


def test_plateau_ends_a_stage_and_moves_those_after_it() -> None:
    recipe = _recipe("stages.0.plateau_steps=3", "stages.0.plateau_min_gain=0.01")
    history = _history(recipe)
    stage = recipe.stages[0]
    for loss in (5.0, 4.0, 3.0, 2.5, 2.4, 2.3):
        history.add(loss, 1.0)
        assert not history.on_plateau(stage)
    for loss in (2.39, 2.4, 2.41):
        history.add(loss, 1.0)
    assert history.on_plateau(stage)
    assert not history.on_plateau(recipe.stages[1])
    plans = plan_stages(recipe, ROWS, {stage.name: 9})
    assert [(plan.first_step, plan.steps) for plan in plans] == [(0, 9), (9, 7), (16, 7)]


def test_state_goes_through_json_to_the_bit() -> None:
    recipe = _recipe("train.spike_sigma=6", "train.spike_window=4", "stages.0.plateau_steps=2")
    history = _history(recipe)
    for step in range(9):
        history.add(1 / (step + 3), math.pi * step)
    history.ended["pretrain"] = 7
    again = _history(recipe)
    again.restore(json.loads(json.dumps(history.state_dict())))
    assert again.state_dict() == history.state_dict()
    assert list(again.losses) == list(history.losses) and again.ended == {"pretrain": 7}


@pytest.mark.parametrize("state", [{}, {"losses": []}])
def test_a_checkpoint_from_before_the_history_is_taken(state: dict[str, object]) -> None:
    history = _history(_recipe())
    history.restore(state)
    assert not history.losses and history.ended == {}

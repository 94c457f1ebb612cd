"""A stage whose loss stopped falling ends early and moves those after it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.train.callbacks.plateau import PlateauCallback
from persianmind.train.stages import plan_stages

SEQUENCES = {"poems": 10, "messages": 5, "english": 5, "translate": 5, "interpret": 5}


def recipe() -> Recipe:
    return load_recipe("tiny", ["stages.0.plateau_steps=3", "stages.0.plateau_min_gain=0.01"])


def test_plateau_ends_a_stage_and_moves_those_after_it() -> None:
    callback = PlateauCallback(recipe().stages)
    stage = recipe().stages[0]
    for loss in (5.0, 4.0, 3.0, 2.5, 2.4, 2.3):
        callback.add(loss, 1.0)
        assert not callback.on_plateau(stage)
    for loss in (2.39, 2.4, 2.41):
        callback.add(loss, 1.0)
    assert callback.on_plateau(stage)
    assert not callback.on_plateau(recipe().stages[1])  # has no rule
    plans = plan_stages(recipe(), SEQUENCES, {stage.name: 9})
    assert [(plan.first_step, plan.steps) for plan in plans] == [(0, 9), (9, 7), (16, 7)]


def test_the_run_is_planned_anew_and_the_next_stage_begins_with_an_empty_window() -> None:
    callback = PlateauCallback(recipe().stages)
    replanned: list[dict[str, int]] = []
    stage = recipe().stages[0]
    context: Any = SimpleNamespace(
        at_stage_end=False, plan=SimpleNamespace(stage=stage), stage_step=0, step=0
    )

    def replan(ended: dict[str, int]) -> None:
        replanned.append(dict(ended))
        context.at_stage_end = True

    context.replan = replan
    for step in range(1, 20):
        context.step = context.stage_step = step
        callback.after_step(context, SimpleNamespace(result=SimpleNamespace(loss=2.0, grad_norm=1.0)))  # type: ignore[arg-type]
        if context.at_stage_end:
            break
    assert replanned == [{"pretrain": 6}] and not callback.losses
    resumed = PlateauCallback(recipe().stages)
    resumed.load_state_dict(callback.state_dict())
    resumed.start(context)  # a resumed run plans as the one before did
    assert replanned == [{"pretrain": 6}] * 2

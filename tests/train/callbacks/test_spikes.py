"""Spikes and steps that are not finite: judged from the numbers alone, and the same after a resume."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from persianmind.common.errors import NonFiniteError
from persianmind.engine.base import StepResult, StopLevel
from persianmind.recipe.loading import load_recipe
from persianmind.run.records import SkipReason
from persianmind.train.callbacks.base import Callback
from persianmind.train.callbacks.spikes import SpikeCallback


def spikes(*overrides: str) -> SpikeCallback:
    return SpikeCallback(load_recipe("tiny", list(overrides)).train)


def outcome(loss: float, reason: SkipReason | None = None) -> Any:
    result = StepResult(loss, 9, math.inf if reason else 1.0, reason, StopLevel.NONE)
    return SimpleNamespace(result=result, samples=range(8, 12))


def test_a_spike_stands_out_of_a_full_window_only() -> None:
    judge = spikes("train.spike_sigma=6", "train.spike_window=8")
    for step in range(8):
        assert not judge.should_skip(1e9, 1e9)  # the window is not full yet
        judge.add(2.0 + 0.01 * (step % 2), 1.0 + 0.1 * (step % 2))
    assert not judge.should_skip(2.02, 1.2)
    assert judge.should_skip(200.0, 1.0) and judge.should_skip(2.0, 100.0)


def test_a_lasting_change_of_level_ends_by_itself() -> None:
    judge = spikes("train.spike_sigma=6", "train.spike_window=8")
    for step in range(8):
        judge.add(2.0 + 0.01 * (step % 2), 1.0)
    skipped = 0
    while judge.should_skip(5.0, 1.0):
        skipped += 1
        judge.add(5.0, 1.0)
    assert 1 <= skipped < 8


def test_without_the_option_nothing_is_a_spike_and_nobody_is_asked() -> None:
    judge = spikes("train.spike_window=2")
    for _ in range(4):
        judge.add(1.0, 1.0)
    assert not judge.skips_steps and not judge.should_skip(1e9, 1e9)
    assert spikes("train.spike_sigma=6").skips_steps


def test_numbers_that_are_not_finite_are_not_remembered() -> None:
    judge = spikes()
    for loss, norm in ((math.nan, 1.0), (1.0, math.inf)):
        judge.add(loss, norm)
    assert not judge.losses and not judge.grad_norms


def test_past_the_budget_in_a_row_the_run_ends_and_everyone_is_told_before() -> None:
    judge = spikes("train.nonfinite_budget=2")
    raised: list[str] = []

    class Other(Callback):
        name = "other"

        def interrupt(self, context: Any) -> None:
            raised.append("interrupt")

    context: Any = SimpleNamespace(step=3, nonfinite_steps=0, callbacks=[judge, Other()])
    bad = outcome(math.nan, SkipReason.NONFINITE)
    judge.after_step(context, bad)
    judge.after_step(context, bad)
    judge.after_step(context, outcome(1.0))  # a sound step between: the count begins anew
    assert context.nonfinite_steps == 0
    judge.after_step(context, bad)
    judge.after_step(context, bad)
    assert raised == []
    with pytest.raises(
        NonFiniteError, match=r"3 steps in a row were not finite, the last with samples 8 to 11"
    ):
        judge.after_step(context, bad)
    assert raised == ["interrupt"]

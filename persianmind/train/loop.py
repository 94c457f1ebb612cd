"""The training loop: load, step, and whatever the callbacks do with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from persianmind.common.errors import PersianMindError, RunInterruptedError
from persianmind.data.read.barrier import DataBarrier
from persianmind.data.read.batches import StageData, padding_batch
from persianmind.data.read.order import Mixture, mixture_ratios, rank_samples
from persianmind.engine.base import Batch, StopLevel
from persianmind.engine.ranks import Ranks
from persianmind.engine.schedule import group_rates
from persianmind.recipe import Recipe
from persianmind.train.context import RunContext, StepOutcome
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.data.read.dataset import TokenDataset


def train_stages(context: RunContext, barrier: DataBarrier) -> None:
    """Runs every stage from `context.step` on.

    Raises:
        RunInterruptedError: a stop was asked for; the checkpoint of the step reached is committed.
        PersianMindError: what a callback raises (budget used up, steps not finite, a save that failed).
    """
    for index in range(len(context.plans)):  # by number: a stage that ends early moves those after it
        context.plan_index = index
        if context.step < context.plan.last_step:
            train_stage(context, barrier)
        for callback in context.callbacks:
            callback.end_stage(context, context.plan)


def train_stage(context: RunContext, barrier: DataBarrier) -> None:
    """Steps through one stage, from wherever `context.step` stands in it."""
    data = stage_data(context.recipe, context.plan, context.datasets)
    while context.step < context.plan.last_step:
        for callback in context.callbacks:
            callback.before_step(context)
        first = context.stage_step * context.recipe.train.global_batch_size
        samples = range(first, first + context.recipe.train.global_batch_size)
        _wait_for_sequences(context, barrier, data, samples)
        outcome = _step(context, data, samples)
        context.step += 1
        for callback in context.callbacks:
            callback.after_step(context, outcome)
        at_end = context.at_stage_end and context.plan is context.plans[-1]
        if outcome.result.stop_level and not at_end:
            _interrupt(context)
            raise _stop_error(context, outcome.result.stop_level)


def _step(context: RunContext, data: StageData, samples: range) -> StepOutcome:
    started_s = time.perf_counter()
    recipe, stage = context.recipe, context.plan.stage
    rates = group_rates(recipe.train, recipe.adapter, stage, context.stage_step, context.plan.steps)
    context.engine.set_rates(rates)
    skipping = [callback for callback in context.callbacks if callback.skips_steps]

    def should_skip(loss: float, grad_norm: float) -> bool:
        return any(callback.should_skip(loss, grad_norm) for callback in skipping)

    result = context.engine.step(
        rank_micro_batches(context.recipe, context.ranks, data, samples),
        stop_level=_stop_level(context),
        should_skip=should_skip if skipping else None,
    )
    return StepOutcome(data, samples, result, rates, time.perf_counter() - started_s)


def rank_micro_batches(recipe: Recipe, ranks: Ranks, data: StageData, samples: range) -> list[Batch]:
    """A rank's part of a global batch, in micro-batches. One of padding, without a target and so of weight 0,
    where the rank has no sample: an engine whose gradients are not touched would not take part in the sum."""
    mine = list(rank_samples(samples.start, len(samples), ranks.rank, ranks.world_size))
    size = recipe.train.micro_batch_size
    return [data.batch(mine[start : start + size]) for start in range(0, len(mine), size)] or [
        padding_batch(recipe.data.seq_len)
    ]


def _wait_for_sequences(context: RunContext, barrier: DataBarrier, data: StageData, samples: range) -> None:
    """Lets the step begin once its sequences are built; a stop is not left waiting for them.

    Raises:
        RunInterruptedError: a stop was asked for; the checkpoint of the step reached is committed.
    """
    if barrier.open(data, samples, context.stop_requested):
        return
    _interrupt(context)
    raise RunInterruptedError(
        f"stopped at step {context.step}, saved, while the next sequences were being built; run the same "
        "command to go on"
    )


def _stop_level(context: RunContext) -> StopLevel:
    """What this rank tells the others at the coming step; the highest wins everywhere."""
    if context.stop_requested():
        return StopLevel.STOP
    return max((callback.stop_level(context) for callback in context.callbacks), default=StopLevel.NONE)


def _stop_error(context: RunContext, level: StopLevel) -> PersianMindError:
    if level is not StopLevel.STOP:
        for callback in context.callbacks:
            if (error := callback.stop_error(context)) is not None:
                return error
    return RunInterruptedError(
        f"stopped at step {context.step}, saved; run the same command to go on, or `persianmind export "
        f"{context.folder} --out DIR` for a model of what is trained so far"
    )


def _interrupt(context: RunContext) -> None:
    for callback in context.callbacks:
        callback.interrupt(context)


def stage_data(recipe: Recipe, plan: StagePlan, datasets: dict[str, TokenDataset]) -> StageData:
    """The order of one stage; its number is mixed into the seed, so stages do not repeat each other."""
    counts = {name: datasets[name].num_sequences for name in plan.stage.sources}
    mixture = Mixture(
        counts,
        mixture_ratios(plan.stage.sources, counts, recipe.data.mixture_temperature),
        recipe.data.mixture_window,
        recipe.seed + plan.index,
        block_sequences=recipe.data.shuffle_block_sequences,
    )
    return StageData(mixture, datasets)

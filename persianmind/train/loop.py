"""The training loop: load, step, and whatever the callbacks do with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from persianmind.common.errors import PersianMindError, RunInterruptedError
from persianmind.data.read.barrier import DataBarrier
from persianmind.data.read.batches import StageData, padding_batch
from persianmind.data.read.order import Mixture, mixture_ratios, rank_samples
from persianmind.data.read.prefetch import ReadAhead
from persianmind.engine.base import Batch, DeviceBatch, StopLevel
from persianmind.engine.ranks import Ranks
from persianmind.engine.schedule import group_rates
from persianmind.model.compiling import forget_shapes
from persianmind.recipe import Recipe
from persianmind.run.log import update_results
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
        was_trained = context.step < context.plan.last_step
        if was_trained:
            if index and context.recipe.seq_len_of(context.plans[index - 1].stage) != context.seq_len:
                forget_shapes(context.engine.model.causal_lm)
            train_stage(context, barrier)
        started_s = time.perf_counter()
        for callback in context.callbacks:
            callback.end_stage(context, context.plan)
        if was_trained:
            context.beside.ends_s.append(time.perf_counter() - started_s)
            if context.is_main:
                update_results(context.folder, beside_steps=context.beside.known)


def train_stage(context: RunContext, barrier: DataBarrier) -> None:
    """Steps through one stage, from wherever `context.step` stands in it."""
    data = stage_data(context.recipe, context.plan, context.datasets)
    with ReadAhead(partial(_read, context, data)) as ahead:
        while context.step < context.plan.last_step:
            for callback in context.callbacks:
                callback.before_step(context)
            samples = _samples(context.recipe, context.stage_step)
            _wait_for_sequences(context, barrier, data, samples)
            outcome = _step(context, data, samples, ahead)
            context.step += 1
            started_s = time.perf_counter()
            for callback in context.callbacks:
                callback.after_step(context, outcome)
            if _measures_within(context):
                context.beside.within_s.append(time.perf_counter() - started_s)
            at_end = context.at_stage_end and context.plan is context.plans[-1]
            if outcome.result.stop_level and not at_end:
                _interrupt(context)
                raise _stop_error(context, outcome.result.stop_level)


def _measures_within(context: RunContext) -> bool:
    """Whether held-out text is scored after this step, within its stage."""
    every_steps = context.recipe.evaluate.every_steps
    return every_steps is not None and context.step % every_steps == 0 and not context.at_stage_end


def _step(
    context: RunContext, data: StageData, samples: range, ahead: ReadAhead[tuple[int, ...], DeviceBatch]
) -> StepOutcome:
    started_s = time.perf_counter()
    recipe, stage = context.recipe, context.plan.stage
    rates = group_rates(recipe.train, recipe.adapter, stage, context.stage_step, context.plan.steps)
    context.engine.set_rates(rates)
    skipping = [callback for callback in context.callbacks if callback.skips_steps]

    def should_skip(loss: float, grad_norm: float) -> bool:
        return any(callback.should_skip(loss, grad_norm) for callback in skipping)

    parts = rank_parts(recipe, context.ranks, samples)
    result = context.engine.step(
        ahead.items(parts, then=_first_part_of_next(context, data)),
        stop_level=_stop_level(context),
        should_skip=should_skip if skipping else None,
        local_targets=data.target_count([sample for part in parts for sample in part]),
        sources=len(data.sources),
    )
    return StepOutcome(data, samples, result, rates, time.perf_counter() - started_s)


def _samples(recipe: Recipe, stage_step: int) -> range:
    """Sample numbers of a step, within its stage."""
    first = stage_step * recipe.train.global_batch_size
    return range(first, first + recipe.train.global_batch_size)


def rank_parts(recipe: Recipe, ranks: Ranks, samples: range) -> list[tuple[int, ...]]:
    """A rank's samples of a global batch by micro-batch. An empty one, of padding, where the rank has no
    sample: an engine whose gradients are not touched would not take part in the sum."""
    mine = tuple(rank_samples(samples.start, len(samples), ranks.rank, ranks.world_size))
    size = recipe.train.micro_batch_size
    return [mine[start : start + size] for start in range(0, len(mine), size)] or [()]


def read_part(data: StageData, part: Sequence[int], seq_len: int) -> Batch:
    """A micro-batch; one without a target, and so of weight 0, for no samples."""
    return data.batch(part) if part else padding_batch(seq_len)


def _read(context: RunContext, data: StageData, part: tuple[int, ...]) -> DeviceBatch:
    return context.engine.prepare(read_part(data, part, context.seq_len))


def _first_part_of_next(context: RunContext, data: StageData) -> tuple[int, ...] | None:
    """What may be read while the optimizer steps; nothing of a source that is still being built, for which
    the ranks wait together."""
    coming = context.stage_step + 1
    is_whole = all(data.datasets[name].num_sequences is not None for name in data.mixture.counts)
    if not is_whole or context.step + 1 >= context.plan.last_step:
        return None
    return rank_parts(context.recipe, context.ranks, _samples(context.recipe, coming))[0]


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
    """The order of one stage; its number is mixed into the seed, so stages do not repeat each other.

    datasets: by the names of their packings.
    """
    own = {name: datasets[recipe.packing(name, plan.stage).name] for name in plan.stage.sources}
    counts = {name: dataset.num_sequences for name, dataset in own.items()}
    mixture = Mixture(
        counts,
        mixture_ratios(plan.stage.sources, counts, recipe.data.mixture_temperature),
        recipe.data.mixture_window,
        recipe.seed + plan.index,
        block_sequences=recipe.data.shuffle_block_sequences,
    )
    return StageData(mixture, own)

"""The curriculum as arithmetic: how many steps each stage has, and where a global step lies in it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from persianmind.common.errors import RecipeError
from persianmind.data.read.order import mixture_ratios, window_counts
from persianmind.recipe import Recipe, Stage
from persianmind.recipe.train import GOOD_PASSES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage with its length. `first_step` is the global number (0-based) of its first step."""

    index: int
    stage: Stage
    steps: int
    first_step: int

    @property
    def last_step(self) -> int:
        """The global step count when the stage is done."""
        return self.first_step + self.steps


def plan_stages(
    recipe: Recipe, sequences: Mapping[str, int | None], ended: Mapping[str, int] | None = None
) -> list[StagePlan]:
    """Lengths in optimizer steps, rounded up: `tokens` counts packed positions, `epochs` passes over a
    source, `steps` are themselves.

    sequences: by the name of a packing; None for one that is still being built; a stage in `epochs` needs
        that of the source it passes over.
    ended: stages that ended before their time, with their length in steps.

    Raises:
        RecipeError: a stage's source has no sequences.
        DataError: a stage would never serve one of its sources.
    """
    plans: list[StagePlan] = []
    first_step = 0
    batch_size = recipe.train.global_batch_size
    for index, stage in enumerate(recipe.stages):
        by_source = _stage_sequences(recipe, stage, sequences)
        if empty := [name for name, count in by_source.items() if count == 0]:
            raise RecipeError(f"stages.{index}: the source {empty[0]!r} has no sequences after filtering")
        _check_served(recipe, stage, by_source)
        if (tokens := recipe.tokens_of(stage)) is not None:
            served = math.ceil(tokens / recipe.seq_len_of(stage))
        else:
            served = _epoch_sequences(stage, by_source, recipe.data.mixture_temperature)
        steps = (ended or {}).get(stage.name) or max(1, math.ceil(served / batch_size))
        plans.append(StagePlan(index, stage, steps, first_step))
        first_step += steps
    return plans


def tokens_after(recipe: Recipe, plans: Sequence[StagePlan], step: int) -> int:
    """Packed positions, over all ranks, of the steps that follow the first `step` ones."""
    return sum(
        max(0, plan.last_step - max(step, plan.first_step)) * recipe.tokens_per_step(plan.stage)
        for plan in plans
    )


def _stage_sequences(
    recipe: Recipe, stage: Stage, sequences: Mapping[str, int | None]
) -> dict[str, int | None]:
    """By source, of what the stage reads of it."""
    return {name: sequences[recipe.packing(name, stage).name] for name in stage.sources}


def _check_served(recipe: Recipe, stage: Stage, sequences_by_source: Mapping[str, int | None]) -> None:
    """Of every stage at once: the last one's mistake must not wait for the steps of the first."""
    temperature = recipe.data.mixture_temperature
    if temperature is None or None not in sequences_by_source.values():
        window_counts(
            mixture_ratios(stage.sources, sequences_by_source, temperature), recipe.data.mixture_window
        )


def log_passes(recipe: Recipe, plans: Sequence[StagePlan], sequences: Mapping[str, int | None]) -> None:
    """Says before step 1 how often each stage passes over each of its sources that is whole; warns beyond
    GOOD_PASSES.

    sequences: by the name of a packing.
    """
    for plan in plans:
        if recipe.data.mixture_temperature is not None and None in sequences.values():
            return
        known = _stage_sequences(recipe, plan.stage, sequences)
        ratios = mixture_ratios(plan.stage.sources, known, recipe.data.mixture_temperature)
        served = plan.steps * recipe.train.global_batch_size
        passes = {name: served * ratios[name] / count for name, count in known.items() if count}
        if not passes:
            continue
        told = ", ".join(f"{name} {often:.3g} times" for name, often in passes.items())
        logger.info(f"stage {plan.stage.name}: passes over {told}")
        often = [name for name in passes if passes[name] > GOOD_PASSES]
        if often:
            logger.warning(
                f"stage {plan.stage.name} passes over {', '.join(often)} more than {GOOD_PASSES} times: "
                "repeated text gains little (arXiv 2305.16264); more text, a smaller part, or fewer tokens"
            )


def _epoch_sequences(
    stage: Stage, sequences_by_source: Mapping[str, int | None], temperature: float | None
) -> int:
    """So many that the source that the stage passes over, with its part of the mixture, is seen as often as
    it says."""
    assert stage.passes is not None
    name, passes = stage.passes
    sequences = sequences_by_source[name]
    if sequences is None:
        raise ValueError(f"stage {stage.name} has a length in epochs of {name}, which is not built")
    ratios = mixture_ratios(stage.sources, sequences_by_source, temperature)
    # a hair less: 2 x 7 / (7 / 10) is 20, not 20.000000000000004 and so 21
    return math.ceil(passes * sequences / ratios[name] - 1e-6)

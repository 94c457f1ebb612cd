"""The curriculum as arithmetic: how many steps each stage has, and where a global step lies in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from persianmind.common.errors import RecipeError
from persianmind.recipe import Recipe, Stage


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
    recipe: Recipe, sequences_by_source: Mapping[str, int | None], ended: Mapping[str, int] | None = None
) -> list[StagePlan]:
    """Lengths in optimizer steps, rounded up: `tokens` counts packed positions, `epochs` sequences of its
    data.

    sequences_by_source: None for a source that is still being built; a stage in `epochs` needs all of its
    own.
    ended: stages that ended before their time, with their length in steps.

    Raises:
        RecipeError: a stage's source has no sequences.
    """
    plans: list[StagePlan] = []
    first_step = 0
    batch_size = recipe.train.global_batch_size
    for index, stage in enumerate(recipe.stages):
        if empty := [name for name in stage.sources if sequences_by_source[name] == 0]:
            raise RecipeError(f"stages.{index}: the source {empty[0]!r} has no sequences after filtering")
        if stage.tokens is not None:
            sequences = math.ceil(stage.tokens / recipe.data.seq_len)
        else:
            sequences = math.ceil((stage.epochs or 0) * _sequences_of(stage, sequences_by_source))
        steps = (ended or {}).get(stage.name) or max(1, math.ceil(sequences / batch_size))
        plans.append(StagePlan(index, stage, steps, first_step))
        first_step += steps
    return plans


def _sequences_of(stage: Stage, sequences_by_source: Mapping[str, int | None]) -> int:
    sequences = [sequences_by_source[name] for name in stage.sources]
    known = [one for one in sequences if one is not None]
    if len(known) < len(sequences):
        raise ValueError(f"stage {stage.name} has a length in epochs and a source that is not built")
    return sum(known)

"""The curriculum as arithmetic: how many steps each stage has, and where a global step lies in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from persianmind.errors import RecipeError
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
    recipe: Recipe, rows_by_source: Mapping[str, int | None], ended: Mapping[str, int] | None = None
) -> list[StagePlan]:
    """Lengths in optimizer steps, rounded up: `tokens` counts packed positions, `epochs` rows of its data.

    rows_by_source: None for a source that is still being built; a stage in `epochs` needs all of its own.
    ended: stages that ended before their time, with their length in steps.

    Raises:
        RecipeError: a stage's source has no rows.
    """
    plans: list[StagePlan] = []
    first_step = 0
    batch_rows = recipe.train.global_batch_rows
    for index, stage in enumerate(recipe.stages):
        if empty := [name for name in stage.sources if rows_by_source[name] == 0]:
            raise RecipeError(f"stages.{index}: the source {empty[0]!r} has no rows after filtering")
        if stage.tokens is not None:
            rows = math.ceil(stage.tokens / recipe.data.row_length)
        else:
            rows = math.ceil((stage.epochs or 0) * _rows_of(stage, rows_by_source))
        steps = (ended or {}).get(stage.name) or max(1, math.ceil(rows / batch_rows))
        plans.append(StagePlan(index, stage, steps, first_step))
        first_step += steps
    return plans


def _rows_of(stage: Stage, rows_by_source: Mapping[str, int | None]) -> int:
    rows = [rows_by_source[name] for name in stage.sources]
    known = [one for one in rows if one is not None]
    if len(known) < len(rows):
        raise ValueError(f"stage {stage.name} has a length in epochs and a source that is not built")
    return sum(known)

"""Which packings must be whole before step 1, and which of the others is to be built next. Pure."""

from __future__ import annotations

import math

from persianmind.recipe import Recipe
from persianmind.recipe.section import Section


class StageNeed(Section):
    """What one stage asks of its sources.

    samples: packed sequences, None where its length is in epochs; ratios: of each packing, by its name,
    adding up to 1.
    """

    samples: int | None
    ratios: dict[str, float]


class BuildOrder(Section):
    """Decides which packing is built next. Plain JSON: it is sent to the building process.

    block_sequences: what must be built before any of it can be served; window: samples in which ratios are
    exact.
    """

    block_sequences: int
    window: int
    stages: list[StageNeed]

    def priority(self, name: str, sequences: int) -> tuple[int, float]:
        """When training runs out of a packing of which `sequences` are built: (stage, sample in it).

        Only whole blocks count, no other sequence can be served. One that has enough for every stage
        comes last.
        """
        ready = sequences // self.block_sequences * self.block_sequences
        for index, stage in enumerate(self.stages):
            if stage.samples is None or name not in stage.ratios:
                continue
            # a window more: ratios are exact in whole windows only
            if ready < stage.ratios[name] * (stage.samples + self.window):
                return index, ready / stage.ratios[name]
        return len(self.stages), float(ready)


def build_order(recipe: Recipe) -> BuildOrder:
    """The order that the stages of a recipe ask for."""
    stages = []
    for stage in recipe.stages:
        tokens = recipe.tokens_of(stage)
        samples = None if tokens is None else math.ceil(tokens / recipe.seq_len_of(stage))
        total = sum(stage.sources.values())
        ratios = {recipe.packing(name, stage).name: part / total for name, part in stage.sources.items()}
        stages.append(StageNeed(samples=samples, ratios=ratios))
    return BuildOrder(
        block_sequences=recipe.data.shuffle_block_sequences or 1,
        window=recipe.data.mixture_window,
        stages=stages,
    )


def needed_whole(recipe: Recipe) -> set[str]:
    """Packings, by name, whose number of sequences decides something before step 1: the length of a stage in
    `epochs`, ratios by size, an order over all sequences."""
    if recipe.data.mixture_temperature is not None or recipe.data.shuffle_block_sequences is None:
        return {packing.name for packing in recipe.stage_packings()}
    return {
        recipe.packing(stage.passes[0], stage).name for stage in recipe.stages if stage.passes is not None
    }

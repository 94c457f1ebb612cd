"""Which sources must be whole before step 1, and which of the others is to be built next. Pure."""

from __future__ import annotations

import math

from persianmind.recipe import Recipe


def needed_whole(recipe: Recipe) -> set[str]:
    """Sources whose number of sequences decides something before step 1: the length of a stage in `epochs`, shares
    by size, an order over all sequences."""
    if recipe.data.mixture_temperature is not None or recipe.data.shuffle_block_sequences is None:
        return set(recipe.stage_sources())
    return {name for stage in recipe.stages if stage.epochs is not None for name in stage.sources}


def build_priority(recipe: Recipe, name: str, sequences: int) -> tuple[int, float]:
    """When training runs out of a source of which `sequences` sequences are built: (stage, sample in it), to compare.

    Only whole blocks count, no other sequence can be served. A source that has enough for every stage comes last.
    """
    block = recipe.data.shuffle_block_sequences or 1
    ready = sequences // block * block
    for index, stage in enumerate(recipe.stages):
        if stage.tokens is None or name not in stage.sources:
            continue
        share = stage.sources[name] / sum(stage.sources.values())
        samples = math.ceil(stage.tokens / recipe.data.seq_len)
        # a window more: shares are exact in whole windows only
        if ready < share * (samples + recipe.data.mixture_window):
            return index, ready / share
    return len(recipe.stages), float(ready)

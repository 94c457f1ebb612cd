"""One source, and everything that turning its records into clean documents depends on."""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

from persianmind.recipe import Normalise, Quality, Recipe, Source
from persianmind.recipe.section import Name, Ratio, Section


class SourceSpec(Section):
    """What a recipe says about one source's text. Plain JSON: it is sent to other processes.

    held_out_ratio: the part of all documents that is held out, whatever their source; 0 holds out none.
    """

    name: Name
    source: Source
    normalise: Normalise
    quality: Quality
    held_out_ratio: Ratio
    seed: int

    def is_held_out(self, key: str) -> bool:
        """Whether the document stays out of all training, the vocabulary included.

        Keys are shared by sources (a poem and its interpretation), so the split holds for every source as
        soon as anything held out is evaluated.
        """
        return is_held_out(key, seed=self.seed, ratio=self.held_out_ratio)


def is_held_out(key: str, *, seed: int, ratio: float) -> bool:
    """Whether the document `key` belongs to the held-out split: a keyed hash, so order never matters."""
    digest = xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"), seed=seed)
    return digest < ratio * 2**64


def source_spec(recipe: Recipe, name: str) -> SourceSpec:
    """The spec of one source of a recipe."""
    return SourceSpec(
        name=name,
        source=recipe.sources[name],
        normalise=recipe.normalise,
        quality=recipe.quality,
        held_out_ratio=recipe.heldout.ratio if recipe.heldout.sources else 0.0,
        seed=recipe.seed,
    )


def source_specs(recipe: Recipe, names: Iterable[str]) -> list[SourceSpec]:
    """The specs of several sources, in the order of `names`."""
    return [source_spec(recipe, name) for name in names]

"""Whether a base has the layers that a recipe wants adapters in, before anything of it is loaded or made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persianmind.model.bases import GGUF_ORIGINS, RANDOM_LAYERS, cached_config, read_config
from persianmind.model.known_bases import known_config
from persianmind.recipe import Recipe


def check_adapted_layers(recipe: Recipe) -> None:
    """Looks at the base as far as it is on this machine, or known; of any other the layers are looked at once
    its config.json is here.

    Raises:
        RecipeError: `adapter.layers` names a layer that the base has not.
    """
    if recipe.adapter.layers is not None and (count := _layers_of(recipe.base)) is not None:
        recipe.adapter.layer_indices(count)


def layers_in_words(recipe: Recipe, layers: int) -> str:
    """Where adapters go, for people: "" for every layer, else as "layers 16-31 of 32"."""
    indices = recipe.adapter.layer_indices(layers)
    if len(indices) == layers:
        return ""
    starts = [one for one in indices if one - 1 not in indices]
    ends = [one for one in indices if one + 1 not in indices]
    runs = [f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True)]
    return f"{'layer' if len(indices) == 1 else 'layers'} {', '.join(runs)} of {layers}"


def _layers_of(base: str) -> int | None:
    scheme, _, name = base.rpartition("://")
    if scheme == "random":
        return RANDOM_LAYERS
    config: Mapping[str, Any] | None
    if scheme == "package":
        config = known_config(GGUF_ORIGINS[name][0])
    elif Path(base).is_dir():
        config = read_config(Path(base))
    else:
        config = cached_config(base) or known_config(base)
    return None if config is None else int(config["num_hidden_layers"])

"""DeepSpeed's own JSON, filled from the recipe: what the recipe says is what trains.

The file stays in DeepSpeed's native format, so people's knowledge of it holds. "auto" is resolved here
(DeepSpeed itself does not know the word), and so is every key that is left out; json_keys.py
and json_off.py are the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persianmind.common.errors import RecipeError, nearest
from persianmind.engine.deepspeed.json_keys import AUTO, FIXED_KEYS, FREE_KEYS, JsonKey, decided_keys
from persianmind.engine.deepspeed.json_off import IGNORED_KEYS, OFF_KEYS, is_off
from persianmind.recipe import Recipe


def read_deepspeed_config(path: Path) -> dict[str, Any]:
    """The JSON as it stands.

    Raises:
        RecipeError: the file is missing, cannot be read, or is no JSON object.
    """
    if not path.is_file():
        raise RecipeError(f"--deepspeed {path}: no such file; ds_configs/zero2.json is the usual one")
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise RecipeError(
            f"--deepspeed {path} cannot be read ({error.strerror}); give another file"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path}: a DeepSpeed config is a JSON object, this file is not")
    return config


def resolve_deepspeed_config(path: Path, recipe: Recipe, world_size: int) -> dict[str, Any]:
    """Everything that DeepSpeed gets: from the recipe, from the file, or what this engine needs.

    Raises:
        ConfigConflictError: a value contradicts the recipe; both places are named.
        RecipeError: a key that nobody knows, or that asks for what this trainer does not do.
    """
    keys: dict[str, JsonKey] = {**decided_keys(recipe, world_size), **FIXED_KEYS, **FREE_KEYS}
    stated = dict(_stated(path, read_deepspeed_config(path), keys))
    resolved: dict[str, Any] = {}
    for place, key in keys.items():
        value = key.settle(f"{path} says {place}", stated.get(place, AUTO))
        if value is not None:
            *parents, last = place.split(".")
            node = resolved
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
    return resolved


def _stated(
    path: Path, node: dict[str, Any], keys: dict[str, JsonKey], section: str = ""
) -> Iterator[tuple[str, Any]]:
    """(dotted place, value) of what the file says about `keys`.

    Raises:
        RecipeError: it says something else that matters.
    """
    known = {*keys, *IGNORED_KEYS, *OFF_KEYS}
    sections = {place.rsplit(".", depth)[0] for place in known for depth in range(1, place.count(".") + 1)}
    for name, value in node.items():
        place = f"{section}{name}"
        if place in sections and "." not in name:
            if not isinstance(value, dict):
                raise RecipeError(f"{path}: {place} is a section of keys; write an object {{...}} there")
            yield from _stated(path, value, keys, f"{place}.")
        elif place not in known or "." in name:
            raise RecipeError(
                f"{path}: unknown key {place!r}{_did_you_mean(place, known)}; docs/deepspeed.md lists what "
                "the file may say"
            )
        elif place in keys:
            yield place, value
        elif place in OFF_KEYS and not is_off(value):
            raise RecipeError(f"{path}: {place} cannot be used here: {OFF_KEYS[place]}; take it out")


def _did_you_mean(place: str, known: set[str]) -> str:
    """The same name at its right place, or the closest one."""
    name = place.rsplit(".", 1)[-1]
    for other in sorted(known):
        if other.rsplit(".", 1)[-1] == name and other != place:
            return f" (did you mean {other!r}?)"
    return nearest(place, sorted(known))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys stand there once: json.loads itself would take the last of two values."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        found[name] = value
    return found

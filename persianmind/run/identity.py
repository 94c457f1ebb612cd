"""What identifies a run: the recipe without the keys that change nothing about what is trained.

One table of free keys, and one function, for the run folder and for checkpoints. What token shards depend on
is part of their own manifest (data/build).
"""

from __future__ import annotations

from typing import Any

from persianmind.common.checksum import hash_text
from persianmind.recipe import Recipe

# May differ when a run is taken up again, and take effect then. As pydantic's `exclude` wants it.
FREE_KEYS: dict[str, Any] = {
    **dict.fromkeys(("checkpoint", "energy", "evaluate", "export"), True),
    "train": {"hang_timeout_s"},
}


def difference(before: Recipe, after: Recipe) -> tuple[str, Any, Any] | None:
    """(dotted key, value before, value after) of the first key that makes two recipes different runs; None
    where they may share a folder."""
    return _first_difference(_fixed_keys(before), _fixed_keys(after))


def recipe_fingerprint(recipe: Recipe) -> str:
    """A hash over every key that is not free."""
    return hash_text(recipe.model_dump_json(exclude=FREE_KEYS))


def _fixed_keys(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude=FREE_KEYS)


def _first_difference(before: Any, after: Any, place: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = _first_difference(before.get(key), after.get(key), f"{place}.{key}".lstrip("."))
            if inner:
                return inner
        return None
    return None if before == after else (place, before, after)

"""Where each value of a resolved recipe comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from persianmind.recipe.whole import Recipe

OVERRIDE, RECIPE, DEFAULT = "command line", "recipe", "default"


def resolved_values(
    recipe: Recipe, tree: Mapping[str, Any], overrides: Sequence[str]
) -> list[tuple[str, Any, str]]:
    """(dotted key, value, origin) of every leaf. tree: the recipe's file as it was written."""
    overridden = {one.partition("=")[0] for one in overrides}
    written = {key for key, _ in _leaves(tree)}
    return [
        (key, value, _origin(key, written, overridden))
        for key, value in _leaves(recipe.model_dump(mode="json"))
    ]


def _origin(key: str, written: set[str], overridden: set[str]) -> str:
    for said, origin in ((overridden, OVERRIDE), (written, RECIPE)):
        # A value that stands for a whole section (a list, a map) says all that is below it.
        if any(key == one or key.startswith(f"{one}.") for one in said):
            return origin
    return DEFAULT


def _leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list) and any(isinstance(one, Mapping) for one in tree):
        items = enumerate(tree)
    if not items:
        yield place, tree
        return
    for key, value in items:
        yield from _leaves(value, f"{place}.{key}".lstrip("."))

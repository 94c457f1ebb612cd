"""What identifies a run: the recipe without the keys that change nothing about what is trained.

One table of keys (keys.py), for the run folder and for checkpoints. What token shards depend on is part of
their own manifest (data/build).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from persianmind.common.checksum import hash_text
from persianmind.recipe import Recipe
from persianmind.run.keys import KEYS, Effect

FIXED = frozenset({Effect.TEXT, Effect.STEPS})
# Every section that a key lies in: "sources" and "sources.*" of "sources.*.uri".
_SECTIONS = {key.rsplit(".", depth)[0] for key in KEYS for depth in range(1, key.count(".") + 1)}


@dataclass(frozen=True, slots=True)
class Change:
    """One key that two recipes have different values for, by its dotted name. None: it is not there."""

    key: str
    before: Any
    after: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key} is {self.after!r} now, was {self.before!r}"


def changes(before: Recipe, after: Recipe) -> list[Change]:
    """Every key in which two recipes differ, in the order of the first."""
    there, here = _values(before), _values(after)
    found = []
    for key in dict.fromkeys([*there, *here]):
        (old, was), (new, now) = there.get(key, (None, None)), here.get(key, (None, None))
        if old != new:
            found.append(Change(key, old, new, now or was or Effect.STEPS))
    return found


def difference(before: Recipe, after: Recipe, fixed: frozenset[Effect] = FIXED) -> Change | None:
    """The first key that makes two recipes different runs; None where they may share a folder.

    fixed: effects that a key may not have.
    """
    return next((change for change in changes(before, after) if change.effect in fixed), None)


def recipe_fingerprint(recipe: Recipe) -> str:
    """A hash over every key that is fixed once steps were done."""
    fixed = {key: value for key, (value, effect) in _values(recipe).items() if effect in FIXED}
    return hash_text(json.dumps(fixed, sort_keys=True, ensure_ascii=False))


def _values(recipe: Recipe) -> dict[str, tuple[Any, Effect]]:
    """Dotted key -> (value, effect), of every key that this recipe has."""
    by_patience = Effect.FREE if recipe.evaluate.patience is None else Effect.STEPS
    return {
        place: (value, by_patience if KEYS[key] is Effect.PATIENCE else KEYS[key])
        for place, key, value in _leaves(recipe.model_dump(mode="json"))
    }


def _leaves(tree: Any, place: str = "", section: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted place, key of the table, value) of everything below a section, or of what is no section."""
    if section and section not in _SECTIONS:
        yield place, section, tree
        return
    items = enumerate(tree) if isinstance(tree, list) else (tree or {}).items()  # None: a section left out
    for name, inner in items:
        key = "*" if f"{section}.*" in _SECTIONS else name
        yield from _leaves(inner, f"{place}.{name}".lstrip("."), f"{section}.{key}".lstrip("."))

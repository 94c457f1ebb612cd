"""Items as people would type them: every text of a test under one change of spelling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from persianmind.common.errors import RecipeError, nearest
from persianmind.evaluate.items import ChoiceItem, Item, PairItem, TextItem, TranslationItem
from persianmind.language import LanguageProfile

Change = Callable[[str], str]


def change_named(name: str, profile: LanguageProfile) -> Change:
    """A change that the language's profile knows by this name.

    Raises:
        RecipeError: it knows none.
    """
    typing = profile.typing
    if name not in typing:
        known = f"it has: {', '.join(typing)}" if typing else "it has none"
        raise RecipeError(f"no perturbation {name!r} in {profile.name}{nearest(name, typing)}; {known}")
    return typing[name]


def perturbed(item: Item, change: Change, options: Any) -> Item:
    """What a model is given of it, changed; never what its output is held against."""
    if isinstance(item, ChoiceItem):
        return replace(
            item,
            passage=change(item.passage),
            question=change(item.question),
            candidates=tuple(change(candidate) for candidate in item.candidates),
        )
    if isinstance(item, TranslationItem):
        side = "source" if options.direction == "forward" else "target"
        return replace(item, **{side: change(getattr(item, side))})
    if isinstance(item, PairItem):
        return replace(item, first=change(item.first), second=change(item.second))
    assert isinstance(item, TextItem)
    return replace(item, text=change(item.text))

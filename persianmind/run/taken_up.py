"""A run that is taken up again with another recipe: what was decided, or finished, by the keys that changed
is forgotten, and made again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from persianmind.recipe import Recipe
from persianmind.run.identity import FIXED, changes
from persianmind.run.keys import Effect
from persianmind.run.log import update_results

if TYPE_CHECKING:
    from persianmind.run.folder import RunFolder

ROUNDED = "; the samples are the same, losses agree to rounding"
logger = logging.getLogger(__name__)


def take_up(folder: RunFolder, before: Recipe, after: Recipe) -> None:
    """Makes a folder ready for a recipe that it may be used with (`RunFolder.check`); says what changed."""
    found = changes(before, after)
    for change in found:
        logger.info(f"recipe: {change}{ROUNDED if change.effect is Effect.ROUNDING else ''}")
    effects = {change.effect for change in found}
    if effects & FIXED:  # nothing is trained yet: scores of the base, at most, are there
        folder.results.unlink(missing_ok=True)
        return
    forgotten: dict[str, Any] = {}
    if Effect.ROUNDING in effects:
        forgotten |= {"recompute": None, "determinism": None}
    if Effect.RESULTS in effects:
        forgotten["finished"] = False
    if forgotten and folder.results.is_file():
        update_results(folder, **forgotten)

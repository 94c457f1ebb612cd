"""A run folder belongs to one recipe: claimed with the first write, refused for any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persianmind.common.atomic import write_text
from persianmind.common.errors import RunFolderError
from persianmind.recipe import Recipe
from persianmind.recipe.loading import dump_recipe, load_recipe
from persianmind.run.identity import FREE_SECTIONS, first_difference

RECIPE = "recipe.yaml"


def check_run_folder(run: Path, recipe: Recipe) -> None:
    """Writes nothing.

    Raises:
        RunFolderError: `run` is a file, holds another recipe's run, or holds something else.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise RunFolderError(f"--output {run} is a file; give a folder")
    path = run / RECIPE
    if not path.is_file():
        if any(not entry.name.startswith(".") for entry in run.iterdir()):
            raise RunFolderError(f"--output {run} is not empty and no run folder; give a new folder")
        return
    before = load_recipe(str(path))
    if difference := first_difference(_compared(before), _compared(recipe)):
        place, there, here = difference
        raise RunFolderError(
            f"{run} belongs to a run with {place}={there!r}, this one has {here!r}; use another --output, "
            "or the recipe it was started with"
        )


def claim_run_folder(run: Path, recipe: Recipe) -> None:
    """Checks, then writes the resolved recipe into the folder (again, when a free section changed)."""
    check_run_folder(run, recipe)
    text = dump_recipe(recipe)
    path = run / RECIPE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def same_recipe(run: Path, recipe: Recipe) -> bool:
    """Whether `run` holds a run of this recipe."""
    path = run / RECIPE
    return path.is_file() and _compared(load_recipe(str(path))) == _compared(recipe)


def _compared(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude=FREE_SECTIONS)

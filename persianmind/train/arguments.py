"""The flags of a training run, for every command that starts one. Imports neither torch nor DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.checks.device import resolve_precision
from persianmind.engine.registry import backend
from persianmind.recipe.loading import known_recipes, load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.options import Resume

if TYPE_CHECKING:
    from persianmind.recipe import Recipe
    from persianmind.train.run import RunRequest

ENGINE_CONFIG = backend().default_config
RecipeOption = Annotated[
    str,
    typer.Option(help=f"A name ({', '.join(known_recipes())}) or a .yaml file.", metavar="NAME|FILE"),
]


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """The flags of a training run as given; `read_request` makes a request of them."""

    recipe: str = "demo"
    deepspeed: Path = ENGINE_CONFIG
    output: Path | None = None
    resume: Resume = "auto"
    resume_from: Path | None = None
    overrides: tuple[str, ...] = ()
    dry_run: bool = False
    accept_changed_data: bool = False

    def request(self) -> RunRequest:
        """What to run; writes nothing, imports neither torch nor DeepSpeed.

        Raises:
            RecipeError: the recipe or an override is not usable as written.
        """
        return self._request(*self.recipe_and_folder())

    def unresolved_request(self) -> RunRequest:
        """The same with `train.precision: auto` left open, where other machines than this one will train.

        Raises:
            RecipeError: the recipe or an override is not usable as written.
        """
        return self._request(*self._read())

    def recipe_and_folder(self) -> tuple[Recipe, RunFolder]:
        """The recipe as this machine trains it, and where.

        Raises:
            RecipeError: the recipe or an override is not usable as written.
        """
        recipe, folder = self._read()
        return resolve_precision(recipe, folder), folder

    def words(self) -> list[str]:
        """The flags that say the same to another process, without overrides."""
        flags: list[tuple[str, object, object]] = [
            ("--recipe", self.recipe, None),
            ("--deepspeed", self.deepspeed, ENGINE_CONFIG),
            ("--output", self.output, None),
            ("--resume", self.resume, "auto"),
            ("--resume-from", self.resume_from, None),
        ]
        given = [word for flag, value, unset in flags if value != unset for word in (flag, str(value))]
        switches = {"--dry-run": self.dry_run, "--accept-changed-data": self.accept_changed_data}
        return [*given, *(flag for flag, is_set in switches.items() if is_set)]

    def _read(self) -> tuple[Recipe, RunFolder]:
        recipe = load_recipe(self.recipe, self.overrides)
        return recipe, RunFolder(self.output or Path("runs") / recipe.name)

    def _request(self, recipe: Recipe, folder: RunFolder) -> RunRequest:
        from persianmind.train.run import RunRequest

        return RunRequest(
            recipe,
            self.deepspeed,
            folder,
            self.resume,
            self.resume_from,
            accept_changed_data=self.accept_changed_data,
            dry_run=self.dry_run,
        )

"""The flags of a training run, for every command that starts one. Imports neither torch nor DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from persianmind.checks.device import resolve_precision
from persianmind.engine.registry import backend
from persianmind.recipe.loading import known_recipes, load_recipe
from persianmind.run.folder import RunFolder

if TYPE_CHECKING:
    from persianmind.recipe import Recipe
    from persianmind.train.run import RunRequest

ENGINE_CONFIG = backend().default_config
EXIT_CODES = (
    "The same command again resumes. Exit codes: 0 done, 2 a mistake to fix, 3 self-test failed, "
    "4 loss not finite, 5 checkpoints unusable, 6 energy budget used up, 8 a rank hangs, "
    "9 a GPU is out of memory or failed, 10 a language is being forgotten, 75 stopped by a signal."
)

RecipeOption = Annotated[
    str,
    typer.Option(help=f"A name ({', '.join(known_recipes())}) or a .yaml file.", metavar="NAME|FILE"),
]
DeepSpeedOption = Annotated[
    Path, typer.Option(help="DeepSpeed's JSON config.", show_default="ds_configs/zero2.json")
]
OutputOption = Annotated[
    Path | None, typer.Option(help="The run folder.", show_default="runs/<recipe name>", metavar="DIR")
]
Resume = Literal["auto", "must", "never"]
ResumeOption = Annotated[Resume, typer.Option(help="Whether to go on from a checkpoint.")]
ResumeFromOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Begin with the trained weights of another run (its folder, or one of its checkpoints).",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show everything up to step 1, decoded; keep nothing.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[key.sub=value]...", help="Recipe overrides.", show_default=False),
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
        return [*given, "--dry-run"] if self.dry_run else given

    def _read(self) -> tuple[Recipe, RunFolder]:
        recipe = load_recipe(self.recipe, self.overrides)
        return recipe, RunFolder(self.output or Path("runs") / recipe.name)

    def _request(self, recipe: Recipe, folder: RunFolder) -> RunRequest:
        from persianmind.train.run import RunRequest

        return RunRequest(recipe, self.deepspeed, folder, self.resume, self.resume_from, dry_run=self.dry_run)

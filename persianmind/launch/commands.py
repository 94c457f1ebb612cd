"""`persianmind train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.console import OverridesArgument, RecipeArgument
from persianmind.common.errors import MachineError, RunInterruptedError
from persianmind.train.options import (
    AcceptDataOption,
    DryRunOption,
    OutputOption,
    ResumeFromOption,
    ResumeOption,
)

if TYPE_CHECKING:
    from persianmind.common.device.choice import DeviceChoice
    from persianmind.recipe import Recipe
    from persianmind.run.folder import RunFolder
    from persianmind.train.arguments import TrainArguments

# Two ranks on a CPU stand for two GPUs: what exchanges gradients is then used as well.
CPU_RANKS = 2


def train_recipe(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="How many GPUs; without any, processes.", show_default="all; 2 on a CPU"),
    ] = None,
    accept_changed_data: AcceptDataOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = None,
    resume: ResumeOption = "auto",
    resume_from: ResumeFromOption = None,
    deepspeed: Annotated[
        Path | None, typer.Option(help="DeepSpeed's JSON config.", show_default="ds_configs/zero2.json")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show what launcher and libraries print, too.")
    ] = False,
) -> None:
    """Train a recipe on this machine, or go on with its run; the same command again resumes."""
    from persianmind.train.arguments import ENGINE_CONFIG, TrainArguments

    config, words = deepspeed or ENGINE_CONFIG, tuple(overrides or ())
    given = TrainArguments(recipe, config, output, resume, resume_from, words, dry_run, accept_changed_data)
    code = start_or_resume(given, gpus, verbose=verbose)
    if code:
        raise typer.Exit(code)


def start_or_resume(given: TrainArguments, gpus: int | None, *, verbose: bool) -> int:
    """Checks what can be checked without a rank, starts the ranks, and waits; returns the exit code.

    Raises:
        PersianMindError: a flag, the recipe, the run folder or this machine is not usable as asked.
    """
    from persianmind.common.device.choice import current_device
    from persianmind.engine.registry import backend
    from persianmind.launch.ranks import RANK_MODULE, RankProcesses
    from persianmind.launch.screen import RunScreen, ScreenLog

    recipe, folder = given.recipe_and_folder()
    folder.check(recipe)
    choice = current_device().required()
    ranks = count_ranks(choice, gpus)
    if _is_over(given, recipe, folder):
        return 0
    screen = RunScreen(
        ScreenLog(folder.log, lambda: not given.dry_run and folder.holds(recipe)), verbose=verbose
    )
    try:
        screen.show(first_line(recipe, folder, choice, ranks, dry_run=given.dry_run))
        words = [*given.words(), *given.overrides]
        command, variables = backend().launch_ranks(RANK_MODULE, words, choice, ranks, os.environ)
        return RankProcesses(command, variables, screen).wait()
    except KeyboardInterrupt:
        screen.show("persianmind: stopped before it began; the same command starts it", is_error=True)
        return RunInterruptedError.exit_code
    finally:
        screen.close()
        sys.stdout.flush()


def count_ranks(choice: DeviceChoice, gpus: int | None) -> int:
    """One per GPU, or as asked.

    Raises:
        MachineError: more than there are.
    """
    if choice.kind == "cpu":
        return gpus or CPU_RANKS
    if gpus is not None and gpus > choice.count:
        raise MachineError(f"--gpus {gpus}, but {choice.count} are visible here ({choice.reason})")
    return gpus or max(1, choice.count)


def first_line(recipe: Recipe, folder: RunFolder, choice: DeviceChoice, ranks: int, *, dry_run: bool) -> str:
    """What is begun, on what, and where it goes."""
    what = ("process", "processes") if choice.kind == "cpu" else ("GPU", "GPUs")
    place = f"{ranks} {what[ranks > 1]}{' on the CPU' if choice.kind == 'cpu' else ''}"
    if dry_run:
        return f"{recipe.name}: dry run on {place}; nothing is kept"
    verb = "going on" if folder.has_checkpoints else "starting"
    return f"{recipe.name}: {verb} with {place}, in {folder}; Ctrl-C stops it, the same command goes on"


def _is_over(given: TrainArguments, recipe: Recipe, folder: RunFolder) -> bool:
    """Whether all is done, which is then said."""
    from persianmind.run.log import read_results

    if given.dry_run or given.resume == "never":
        return False
    if not (folder.holds(recipe) and read_results(folder).finished):
        return False
    from persianmind.report.page import write_report
    from persianmind.train.command import show_finished

    show_finished(folder, recipe, write_report)
    return True

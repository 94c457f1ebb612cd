"""The training command: `launcher/train.py`, and what the Ray driver shares with it.

Without other flags it runs the embedded demo recipe. The same command again resumes, or says that all is
done.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from persianmind.checks.all import check_resume_from, preflight
from persianmind.checks.device import check_device, resolve_precision
from persianmind.common.console import invoke, run_guarded
from persianmind.common.errors import MachineError, PersianMindError
from persianmind.common.log import configure_logging
from persianmind.engine.ranks import Ranks, ranks_from_environment
from persianmind.engine.registry import backend
from persianmind.evaluate.doctor import check_evaluation
from persianmind.recipe import Recipe
from persianmind.recipe.loading import known_recipes, load_recipe, read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.identity import changes
from persianmind.train.gpu_errors import keep_traceback, named_gpu_error
from persianmind.train.run import ReportWriter, RunRequest, is_complete, run_training

SAID_BY_RANK_0_S = 10.0

ENGINE_CONFIG = backend().default_config
logger = logging.getLogger(__name__)
EXIT_CODES = (
    "The same command again resumes. Exit codes: 0 done, 2 a mistake to fix, 3 self-test failed, "
    "4 loss not finite, 5 checkpoints unusable, 6 energy budget used up, 8 a rank hangs, "
    "9 a GPU is out of memory or failed, 10 a language is being forgotten, 11 a disk is full or failing, "
    "75 stopped by a signal."
)

RecipeOption = Annotated[
    str,
    typer.Option(help=f"A name ({', '.join(known_recipes())}) or a .yaml file.", metavar="NAME|FILE"),
]
DeepSpeedOption = Annotated[Path, typer.Option(help="DeepSpeed's JSON config.")]
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
AcceptDataOption = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data",
        help="Go on although the data are not those that the run was trained on; it is recorded.",
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
    accept_changed_data: bool = False

    def request(self) -> RunRequest:
        """What to run; writes nothing, imports neither torch nor DeepSpeed.

        Raises:
            RecipeError: the recipe or an override is not usable as written.
        """
        asked = self.unresolved_request()
        return replace(asked, recipe=resolve_precision(asked.recipe, asked.folder))

    def unresolved_request(self) -> RunRequest:
        """The same with `train.precision: auto` left open, where other machines than this one will train.

        Raises:
            RecipeError: the recipe or an override is not usable as written.
        """
        recipe = load_recipe(self.recipe, self.overrides)
        folder = RunFolder(self.output or Path("runs") / recipe.name)
        return RunRequest(
            recipe,
            self.deepspeed,
            folder,
            self.resume,
            self.resume_from,
            accept_changed_data=self.accept_changed_data,
            dry_run=self.dry_run,
        )


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    help="Adapt an open LLM to your language: vocabulary, LoRA, ZeRO-2, energy account.", epilog=EXIT_CODES
)
def train(
    recipe: RecipeOption = "demo",
    deepspeed: DeepSpeedOption = ENGINE_CONFIG,
    output: OutputOption = None,
    resume: ResumeOption = "auto",
    resume_from: ResumeFromOption = None,
    accept_changed_data: AcceptDataOption = False,
    dry_run: DryRunOption = False,
    overrides: OverridesArgument = None,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True)] = 0,  # the launcher's own
) -> TrainArguments:
    """Collects the flags."""
    words = tuple(overrides or ())
    return TrainArguments(recipe, deepspeed, output, resume, resume_from, words, dry_run, accept_changed_data)


def read_request(arguments: Sequence[str]) -> RunRequest | None:
    """Flags and recipe -> what to run; None where only help was asked for.

    Raises:
        PersianMindError: a flag, the recipe or an override is not usable as written.
    """
    given = invoke(app, arguments, prog="launcher/train.py")
    return given.request() if isinstance(given, TrainArguments) else None


def run_request(request: RunRequest, ranks: Ranks, write_report: ReportWriter) -> None:
    """Checks everything (rank 0, for all), then trains, or says that all is done.

    Raises:
        PersianMindError: one line with the fix; a mistake is found before anything is written.
    """
    try:
        _check_and_run(request, ranks, write_report)
    except PersianMindError:
        raise
    except Exception as error:
        if (named := named_gpu_error(error, request.recipe)) is None:
            raise
        place = keep_traceback(error, request.folder, ranks.rank)
        raise type(named)(f"{named}; traceback: {place}") from None


def _check_and_run(request: RunRequest, ranks: Ranks, write_report: ReportWriter) -> None:
    if request.dry_run:
        from persianmind.train.dry_run import show_dry_run

        show_dry_run(request, ranks)
        return
    if is_finished(request):
        if ranks.rank == 0:
            show_finished(request.folder, request.recipe, write_report)
        return
    if ranks.rank == 0:
        preflight(request.recipe, request.engine_config, request.folder, ranks.world_size)
        check_evaluation(request.recipe)
        check_resume_from(request.resume_from)
    logger.info(f"device: {_check_own_device(request, ranks)}")
    run_training(request, ranks, write_report)


def _check_own_device(request: RunRequest, ranks: Ranks) -> str:
    """Every rank for itself: nodes differ, and on a cluster each worker sees a GPU of its own."""
    try:
        return check_device(request.recipe)
    except MachineError as error:
        error.by_all_ranks = ranks.local_rank > 0  # the first rank of this node sees the same and says it
        raise


def is_finished(request: RunRequest) -> bool:
    """Whether there is nothing left to do."""
    return request.resume != "never" and is_complete(request.folder, request.recipe)


def show_finished(folder: RunFolder, recipe: Recipe, write_report: ReportWriter) -> None:
    """What a finished run came to, and what of a recipe comes too late for it.

    Its page is written where it is missing, as a full disk leaves it.
    """
    from persianmind.run.log import read_results
    from persianmind.train.summary import summary_lines

    logger.info(f"{folder}: all done; nothing to do")
    if late := changes(read_run_recipe(folder.recipe), recipe):
        keys = ", ".join(change.key for change in late)
        logger.info(f"without effect on a run that is done: {keys}; `persianmind evaluate` measures more")
    for line in summary_lines(read_results(folder)):
        logger.info(line)
    report = folder.report if folder.report.is_file() else write_report(folder.path)
    logger.info(f"report: {report}")


def main(write_report: ReportWriter) -> None:
    """Entry of every rank. A mistake that every rank sees is said once, by rank 0."""
    backend().prepare_environment()
    ranks = ranks_from_environment()
    configure_logging(ranks.rank)
    requests: list[RunRequest | None] = []
    code = run_guarded(lambda: requests.append(read_request(sys.argv[1:])), silent=ranks.rank != 0)
    if code and ranks.rank != 0:
        # The launcher ends all ranks once one has ended: rank 0 would be killed before it says what is wrong.
        time.sleep(SAID_BY_RANK_0_S)
    if code == 0 and (request := requests[0]) is not None:
        code = run_guarded(lambda: run_request(request, ranks, write_report), rank=ranks.rank)
    with suppress(OSError):  # a log on a full disk must not change the exit code
        sys.stdout.flush()
    # Threads of gloo and of the shared-memory kernel can hang interpreter shutdown; all work is on disk.
    os._exit(code)

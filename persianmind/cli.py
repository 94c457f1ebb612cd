"""The `persianmind` command, no logic. Each package keeps its commands in its own `commands.py`, which
imports nothing heavy at the top, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind import __version__
from persianmind.chat.commands import chat
from persianmind.checkpoint.commands import app as checkpoint_app
from persianmind.checks.commands import make_doctor
from persianmind.cluster.commands import PASSED_ON, submit_recipe
from persianmind.common.console import invoke, run_guarded
from persianmind.common.log import configure_logging, print_line
from persianmind.data.commands import app as data_app
from persianmind.energy.commands import app as energy_app
from persianmind.estimate.commands import plan
from persianmind.evaluate.commands import make_evaluate
from persianmind.gpucheck.commands import gpu_check
from persianmind.launch.check_command import make_check
from persianmind.launch.commands import train_recipe
from persianmind.launch.config_commands import app as config_app
from persianmind.launch.init_command import init
from persianmind.launch.vocab_commands import app as vocab_app
from persianmind.publish.commands import export, verify
from persianmind.report.commands import report
from persianmind.report.run_commands import compare_runs, runs, watch
from persianmind.train.options import EXIT_CODES

if TYPE_CHECKING:
    from pathlib import Path

    from persianmind.checks.base import Check
    from persianmind.evaluate.commands import Place


def _model_place(path: Path, checkpoint: str | None) -> Place:
    """What opens a model is above the package that measures it."""
    from persianmind.publish.opening import ModelPlace

    return ModelPlace(path, checkpoint)


def _later_checks() -> list[Check]:
    """Doctor's checks that packages above its own make."""
    from persianmind.cluster.doctor import RAY
    from persianmind.evaluate.doctor import SUITES
    from persianmind.gpucheck.doctor import RANKS

    return [RANKS, RAY, SUITES]


def _flag_hint(flag: str) -> str:
    """Looked up where a flag is wrong alone."""
    from persianmind.recipe.hints import flag_hint

    return flag_hint(flag)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print_line(f"persianmind {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="persianmind",
    help="Bring an open LLM to your own language on the GPUs you own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
BEFORE, RUN, MODEL, EXPERTS = "Before a run", "A run", "Its model", "For experts"

app.command(rich_help_panel=BEFORE)(init)
app.command("check", rich_help_panel=BEFORE)(make_check(_later_checks))
app.command(rich_help_panel=BEFORE)(plan)
app.command("doctor", rich_help_panel=BEFORE)(make_doctor(_later_checks))
app.command("train", rich_help_panel=RUN, epilog=EXIT_CODES)(train_recipe)
app.command("submit", rich_help_panel=RUN, context_settings=PASSED_ON)(submit_recipe)
app.command(rich_help_panel=RUN)(runs)
app.command(rich_help_panel=RUN)(watch)
app.command("compare", rich_help_panel=RUN)(compare_runs)
app.command(rich_help_panel=RUN)(report)
app.command("evaluate", rich_help_panel=MODEL)(make_evaluate(_model_place))
app.command(rich_help_panel=MODEL)(export)
app.command(rich_help_panel=MODEL)(chat)
app.command(rich_help_panel=MODEL)(verify)
app.add_typer(
    vocab_app,
    name="vocab",
    help="Expand a tokenizer, report on it, plan its size.",
    rich_help_panel=EXPERTS,
)
app.add_typer(
    data_app,
    name="data",
    help="Check, show and count sources; build and inspect packed token shards.",
    rich_help_panel=EXPERTS,
)
app.add_typer(
    checkpoint_app,
    name="checkpoint",
    help="List, verify and inspect checkpoints of a run.",
    rich_help_panel=EXPERTS,
)
app.add_typer(energy_app, name="energy", help="The energy and CO2 account of a run.", rich_help_panel=EXPERTS)
app.add_typer(
    config_app,
    name="config",
    help="A recipe's values with where each comes from; its schema.",
    rich_help_panel=EXPERTS,
)
app.command("gpu-check", rich_help_panel=EXPERTS)(gpu_check)


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """What belongs to no command."""


def main() -> None:
    """Console script: errors of ours are one line and an exit code."""
    configure_logging()
    codes: list[object] = []
    code = run_guarded(lambda: codes.append(invoke(app, sys.argv[1:], "persianmind", _flag_hint)))
    sys.exit(code or (codes[0] if isinstance(codes[0], int) else 0))

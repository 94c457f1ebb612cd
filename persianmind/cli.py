"""The `persianmind` command, no logic. Each package keeps its commands in its own `commands.py`, which
imports nothing heavy at the top, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from persianmind.chat.commands import chat
from persianmind.checkpoint.commands import app as checkpoint_app
from persianmind.checks.commands import make_doctor
from persianmind.common.console import run_guarded
from persianmind.common.log import configure_logging
from persianmind.data.commands import app as data_app
from persianmind.energy.commands import app as energy_app
from persianmind.estimate.commands import plan
from persianmind.evaluate.commands import make_evaluate
from persianmind.gpucheck.commands import gpu_check
from persianmind.publish.commands import export, verify
from persianmind.report.commands import report
from persianmind.vocab.commands import app as vocab_app

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


app = typer.Typer(
    name="persianmind",
    help="Bring an open LLM to your own language on the GPUs you own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(vocab_app, name="vocab", help="Expand a tokenizer, report on it, plan its size.")
app.add_typer(
    data_app, name="data", help="Check, show and count sources; build and inspect packed token shards."
)
app.add_typer(checkpoint_app, name="checkpoint", help="List, verify and inspect checkpoints of a run.")
app.add_typer(energy_app, name="energy", help="The energy and CO2 account of a run.")
app.command()(plan)
app.command("doctor")(make_doctor(_later_checks))
app.command()(report)
app.command()(chat)
app.command("evaluate")(make_evaluate(_model_place))
app.command()(export)
app.command()(verify)
app.command("gpu-check")(gpu_check)


def main() -> None:
    """Console script: errors of ours are one line and an exit code."""
    configure_logging()
    sys.exit(run_guarded(lambda: app(standalone_mode=True)))

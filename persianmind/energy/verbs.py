"""`persianmind energy ...`: the account of a run, and which power limit gives the most tokens a joule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.console import JsonFlag, emit_json

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _energy() -> None:
    """The energy and CO2 account of a run."""


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The run folder, such as runs/demo.")],
    compare: Annotated[
        list[Path] | None, typer.Option("--compare", help="Another run folder beside it; may be repeated.")
    ] = None,
    as_json: JsonFlag = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a stage, node and component.")] = False,
) -> None:
    """What a run used and emitted: kWh, CO2, cost, by stage, node and component."""
    from persianmind.energy.run_account import account
    from persianmind.energy.show import show_account, write_csv

    summary = account(run)
    others = {str(other): account(other, comparison=False) for other in compare or []}
    if as_json:
        emit_json({**summary, "runs": others} if others else summary)
    elif as_csv:
        write_csv({str(run): summary, **others})
    else:
        show_account(run, summary, others)

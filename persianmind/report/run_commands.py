"""`persianmind runs`, `watch` and `compare`: where runs stand, from their files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.errors import RunFolderError
from persianmind.common.log import print_line

if TYPE_CHECKING:
    from persianmind.report.status import RunStatus

HEADER = ("run", "state", "step", "bits/byte", "used", "training ends")


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds run folders.")] = Path("runs"),
) -> None:
    """List the runs of a folder: state, step, scores, energy, when training will be done."""
    from persianmind.report.status import run_status, runs_in

    found = [run_status(one) for one in runs_in(folder)]
    if not found:
        raise RunFolderError(f"{folder} holds no runs; `persianmind train RECIPE` begins one in runs/")
    emit_table(str(folder), HEADER, [_row(one) for one in found])


def watch(
    run: Annotated[Path, typer.Argument(help="The run folder, such as runs/demo.")],
    every_s: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 5.0,
) -> None:
    """Show where a run stands and what it wrote last; on a terminal until it ends."""
    from persianmind.report.status import RunState, run_status
    from persianmind.run.folder import RunFolder

    while True:
        status = run_status(RunFolder(run))
        for line in watch_lines(status):
            print_line(line)
        if status.state is not RunState.RUNNING or not sys.stdout.isatty():
            return
        time.sleep(every_s)


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.")],
    as_json: JsonFlag = False,
) -> None:
    """Set runs beside one another: quality, tokens, time, and the energy that a gained 0.1 bit took."""
    from persianmind.report.run_table import compare_rows, compared
    from persianmind.report.status import run_status
    from persianmind.run.folder import RunFolder

    found = [run_status(RunFolder(path)) for path in runs]
    if as_json:
        emit_json({"runs": compared(found)})
    else:
        emit_table("runs", ["", *(str(one.folder) for one in found)], compare_rows(found))


def watch_lines(status: RunStatus) -> list[str]:
    """For people: a line of facts, and the samples of the newest stage that wrote any."""
    name, state, step, scores, used, ends = _row(status)
    loss = "" if status.loss is None else f", loss {status.loss:.4f}"
    stage = f" of {status.stage}" if status.stage else ""
    lines = [f"{name}: {state}, step {step}{stage}{loss}, {scores} bits/byte, {used}, ends {ends}"]
    newest = status.samples[-1].stage if status.samples else None
    shown = [one for one in status.samples if one.stage == newest]
    return lines + [f"  {newest}: {one.prompt} -> {one.text}" for one in shown]


def _row(status: RunStatus) -> list[str]:
    from persianmind.common.units import clock_text
    from persianmind.energy.show import kwh_text
    from persianmind.report.status import RunState

    total = "?" if status.total_steps is None else status.total_steps
    is_running = status.state is RunState.RUNNING and status.left_s is not None
    scores = ", ".join(f"{code} {change.last:.3f}" for code, change in status.changes.items())
    return [
        status.folder.path.name,
        status.state.value,
        f"{status.step}/{total}",
        scores or "-",
        kwh_text(status.kwh),
        clock_text(status.left_s or 0.0) if is_running else "-",
    ]

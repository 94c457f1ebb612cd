"""`persianmind report RUN ...`: the HTML page of a run, or one page that compares several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json
from persianmind.common.log import print_line


def report(
    runs: Annotated[list[Path], typer.Argument(help="A run folder, such as runs/demo; or several.")],
    out: Annotated[
        Path, typer.Option(help="The page that compares several runs; that of one run lies in its folder.")
    ] = Path("comparison.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write RUN/report.html: quality, energy, training and samples on one page that needs nothing else.

    Several runs give one page that puts them side by side, with the settings that differ.
    """
    from persianmind.report.compare import write_comparison
    from persianmind.report.page import write_report

    page = write_report(runs[0]) if len(runs) == 1 else write_comparison(runs, out)
    if as_json:
        emit_json({"report": str(page), "size_bytes": page.stat().st_size})
    else:
        print_line(f"wrote {page}")

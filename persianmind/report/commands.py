"""`persianmind report RUN`: the HTML page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json
from persianmind.common.log import print_line


def report(
    run: Annotated[Path, typer.Argument(help="The run folder, such as runs/demo.")],
    as_json: JsonFlag = False,
) -> None:
    """Write RUN/report.html: quality, energy, training and samples on one page that needs nothing else."""
    from persianmind.report.page import write_report

    page = write_report(run)
    if as_json:
        emit_json({"report": str(page), "size_bytes": page.stat().st_size})
    else:
        print_line(f"wrote {page}")

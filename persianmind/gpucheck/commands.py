"""`persianmind gpu-check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import emit_table


def gpu_check(
    small: Annotated[
        bool, typer.Option("--small", help="Every part on the CPU, at tiny shapes: does the check work?")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where report.json and the logs go.", metavar="DIR")] = Path(
        "runs/gpu-check"
    ),
    parts: Annotated[str, typer.Option(help="Only these, such as numerics,kernels.", metavar="A,B")] = "",
) -> None:
    """Measure on this machine's GPUs what no other machine can show; under nine minutes, no downloads."""
    from persianmind.common.device.choice import current_device
    from persianmind.common.errors import MachineError
    from persianmind.gpucheck.registry import choose_parts
    from persianmind.gpucheck.runner import run_check

    chosen = choose_parts([name.strip() for name in parts.split(",") if name.strip()])
    if not small and (choice := current_device().required()).kind != "cuda":
        raise MachineError(f"gpu-check: {choice.reason}; `make gpu-check SMALL=1` runs every part on the CPU")
    report = run_check(chosen, out, small=small)
    emit_table(f"gpu-check: {report.path}", ("part", "", "s", "what it came to"), report.rows())
    if not report.ok:
        raise typer.Exit(1)

"""Flags that every command which starts a run shares; they import typer alone, for a quick `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXIT_CODES = (
    "The same command again resumes. Exit codes: 0 done, 2 a mistake to fix, 3 self-test failed, "
    "4 loss not finite, 5 checkpoints unusable, 6 energy budget used up, 8 a rank hangs, "
    "9 a GPU is out of memory or failed, 10 a language is being forgotten, 11 a disk is full or failing, "
    "75 stopped by a signal."
)

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

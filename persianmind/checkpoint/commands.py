"""`persianmind checkpoint list|verify|inspect RUN`: what is stored, whether it is whole, what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.errors import CheckpointError, RunFolderError

app = typer.Typer(no_args_is_help=True)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)]
StepOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", help="A folder name such as step-200; without it, the newest.", metavar="NAME"
    ),
]


def _folders(run: Path) -> list[Path]:
    """The checkpoint folders of `run`, highest step first.

    Raises:
        RunFolderError: there is no such run folder.
    """
    from persianmind.checkpoint.retention import checkpoint_folders

    if not run.is_dir():
        raise RunFolderError(f"there is no run folder {run}; give the folder that holds checkpoints/")
    return checkpoint_folders(run / "checkpoints")


def _choose(run: Path, name: str | None) -> list[Path]:
    folders = _folders(run)
    if name is None:
        return folders
    chosen = [folder for folder in folders if folder.name == name]
    if not chosen:
        known = ", ".join(folder.name for folder in folders) or "none"
        raise CheckpointError(f"{run} has no checkpoint {name!r}; it has: {known}")
    return chosen


def _row(folder: Path) -> dict[str, Any]:
    from persianmind.checkpoint.manifest import read_manifest

    try:
        checkpoint = read_manifest(folder)
    except CheckpointError as error:
        return {"checkpoint": folder.name, "problem": str(error)}
    return {
        "checkpoint": folder.name,
        "step": checkpoint.step,
        "sequence": checkpoint.sequence,
        "saved_at": checkpoint.saved_at,
        "world_size": checkpoint.world_size,
        "size_bytes": checkpoint.size_bytes,
        "files": len(checkpoint.files),
        "stage": checkpoint.metadata.get("stage"),
    }


@app.command("list")
def list_checkpoints(run: RunArgument, as_json: JsonFlag = False) -> None:
    """List the checkpoints of a run, highest step first; manifests are read, contents are not hashed."""
    from persianmind.checkpoint.pointer import read_pointer

    rows = [_row(folder) for folder in _folders(run)]
    if as_json:
        emit_json({"run": str(run), "latest": read_pointer(run / "checkpoints"), "checkpoints": rows})
        return
    columns = ["checkpoint", "stage", "world_size", "files", "size_bytes", "saved_at", "problem"]
    emit_table(
        f"{run}: {len(rows)} checkpoints", columns, [[row.get(c, "") for c in columns] for row in rows]
    )


@app.command("verify")
def verify_checkpoints(run: RunArgument, name: StepOption = None, as_json: JsonFlag = False) -> None:
    """Compare every byte of every checkpoint (or of one) with its manifest; exit code 5 if any differs."""
    from persianmind.checkpoint.verify import examine_checkpoint

    results = [
        {"checkpoint": folder.name, "problems": examine_checkpoint(folder)[1]}
        for folder in _choose(run, name)
    ]
    bad = [str(result["checkpoint"]) for result in results if result["problems"]]
    if as_json:
        emit_json({"run": str(run), "whole": not bad, "checkpoints": results})
    else:
        rows = [(result["checkpoint"], "; ".join(result["problems"]) or "whole") for result in results]
        emit_table(f"{run}: {len(results)} checkpoints, {len(bad)} damaged", ["checkpoint", "verdict"], rows)
    if bad:
        raise CheckpointError(
            f"{len(bad)} of {len(results)} checkpoints of {run} are damaged ({', '.join(bad)}); "
            "a resume uses the newest whole one"
        )


@app.command("inspect")
def inspect_checkpoint(run: RunArgument, name: StepOption = None, as_json: JsonFlag = False) -> None:
    """Show the metadata and files that one checkpoint's manifest records (nothing in it is loaded)."""
    from persianmind.checkpoint.manifest import read_manifest

    chosen = _choose(run, name)
    if not chosen:
        raise CheckpointError(f"{run} has no checkpoint yet")
    checkpoint = read_manifest(chosen[0])
    files = {file: vars(entry) for file, entry in checkpoint.files.items()}
    if as_json:
        emit_json({**_row(checkpoint.path), "metadata": dict(checkpoint.metadata), "contents": files})
        return
    metadata = [*_row(checkpoint.path).items(), *_flat("metadata", checkpoint.metadata)]
    emit_table(str(checkpoint.path), ["fact", "value"], metadata)
    emit_table(
        "files",
        ["file", "bytes", "xxh3-128"],
        [(f, e.size_bytes, e.digest) for f, e in checkpoint.files.items()],
    )


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [item for key, inner in value.items() for item in _flat(f"{prefix}.{key}", inner)]
    return [(prefix, value)]

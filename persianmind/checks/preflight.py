"""Everything that can be wrong, found before anything is written and before torch is imported."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from persianmind.checkpoint.manifest import is_checkpoint
from persianmind.common.errors import CheckpointError, MachineError
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.model.bases import check_base
from persianmind.recipe import Recipe
from persianmind.run.folder import check_run_folder
from persianmind.text.documents import check_usable
from persianmind.text.stream import check_sources

SPARE_BYTES = 500_000_000


def preflight(recipe: Recipe, deepspeed_json: Path, run: Path, world_size: int) -> None:
    """Checks recipe against DeepSpeed's JSON, ranks, base, sources, run folder, compiler and disk room.

    Raises:
        PersianMindError: the first thing that is wrong, as one line with the fix.
    """
    resolve_deepspeed_config(deepspeed_json, recipe, world_size)
    check_run_folder(run, recipe)
    check_base(recipe.base)
    check_sources(recipe.sources)
    check_usable(recipe, recipe.stage_sources())
    check_trackers(recipe.train.trackers)
    check_compiler()
    check_disk_room(run, needed_bytes(recipe))


def check_trackers(names: Iterable[str]) -> None:
    """Looks for the packages of the trackers without importing them.

    Raises:
        MachineError: one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MachineError(
                f"train.trackers names {name}, which is not installed: pip install {name}, or take it out of "
                "the list"
            )


def check_resume_from(place: Path | None) -> None:
    """Looks whether there is something to begin with; its bytes are verified when it is used.

    Raises:
        CheckpointError: neither a checkpoint nor a run with checkpoints.
    """
    if place is not None and not is_checkpoint(place) and not any(place.glob("checkpoints/step-*")):
        raise CheckpointError(
            f"--resume-from {place}: neither a checkpoint nor a run folder with checkpoints; give e.g. "
            "runs/NAME or runs/NAME/checkpoints/step-200"
        )


def check_compiler() -> None:
    """On a machine without GPUs DeepSpeed compiles its communication kernel the first time it runs.

    Raises:
        MachineError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX") or "g++"
    if not has_gpu() and shutil.which(compiler) is None:
        raise MachineError(
            f"no C++ compiler ({compiler}): DeepSpeed builds its CPU kernel with it; install one, e.g. "
            "`sudo apt-get install g++`"
        )


def has_gpu() -> bool:
    """Whether an NVIDIA device is there, without importing torch."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def needed_bytes(recipe: Recipe) -> int:
    """A lower bound of what a run writes: the merged export and some room for shards and checkpoints."""
    folder = Path(recipe.base)
    base_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder.is_dir() else 0
    return SPARE_BYTES + (base_bytes if recipe.export.enabled else 0)


def check_disk_room(run: Path, needed: int) -> None:
    """Looks at the file system that `run` is or will be on.

    Raises:
        MachineError: less than `needed` bytes are free.
    """
    existing = next(path for path in (run, *run.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise MachineError(
            f"{existing} has {free / 1e9:.2f} GB free and the run needs at least {needed / 1e9:.2f} GB; free "
            "some space or give another --output"
        )

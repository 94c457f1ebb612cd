"""The one list of checks: doctor runs all of it, a start stops at the first that fails.

Nothing here writes, and nothing imports torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from persianmind.checkpoint.manifest import is_checkpoint
from persianmind.checks.base import Check, stop_at_first
from persianmind.checks.device import check_device
from persianmind.checks.machine import check_compiler, check_disk, check_packages, check_trackers
from persianmind.common.errors import CheckpointError
from persianmind.engine.registry import backend
from persianmind.estimate.disk import run_bytes
from persianmind.model.bases import check_base
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.text.corpus import check_usable
from persianmind.text.spec import source_specs
from persianmind.text.stream import check_sources


def all_checks(recipe: Recipe, engine_config: Path, folder: RunFolder, world_size: int) -> list[Check]:
    """Everything that can be wrong with a run of this recipe on this machine, the cheapest first."""

    def config() -> str:
        backend().resolve_config(engine_config, recipe, world_size)
        return f"{engine_config} fits the recipe on {world_size} ranks"

    def run_folder() -> str:
        folder.check(recipe)
        return str(folder)

    def base() -> str:
        check_base(recipe.base, recipe.train.quantize)
        return recipe.base

    def sources() -> str:
        check_sources(recipe.sources)
        check_usable(source_specs(recipe, recipe.stage_sources()))
        return ", ".join(recipe.sources)

    return [
        Check("python", lambda: sys.version.split()[0]),
        Check("packages", check_packages),
        Check("device", lambda: check_device(recipe)),
        Check("engine config", config),
        Check("run folder", run_folder),
        Check("base model", base),
        Check("sources", sources),
        Check("trackers", lambda: check_trackers(recipe.train.trackers)),
        Check("compiler", check_compiler),
        Check("disk", lambda: check_disk(folder.path, run_bytes(recipe))),
    ]


def preflight(recipe: Recipe, engine_config: Path, folder: RunFolder, world_size: int) -> None:
    """Every fatal check, before anything is written.

    Raises:
        PersianMindError: the first thing that is wrong, as one line with the fix.
    """
    stop_at_first(all_checks(recipe, engine_config, folder, world_size))


def check_resume_from(path: Path | None) -> None:
    """Looks whether there is something to begin with; its bytes are verified when it is used.

    Raises:
        CheckpointError: neither a checkpoint nor a run with checkpoints.
    """
    if path is not None and not is_checkpoint(path) and not RunFolder(path).has_checkpoints:
        raise CheckpointError(
            f"--resume-from {path}: neither a checkpoint nor a run folder with checkpoints; give e.g. "
            "runs/NAME or runs/NAME/checkpoints/step-200"
        )

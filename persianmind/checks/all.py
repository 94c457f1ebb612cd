"""The one list of checks: doctor makes all of it, a start its fatal part and stops at the first that fails.

Nothing here keeps what it writes, and nothing imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from persianmind.checkpoint.manifest import is_checkpoint
from persianmind.checks.base import Check, CheckContext, CheckResult, one_fact, stop_at_first
from persianmind.checks.device import check_device
from persianmind.checks.disk import check_disk_speed, check_file_system, state_room
from persianmind.checks.fit import check_fit
from persianmind.checks.gpus import check_gpus
from persianmind.checks.host import check_host
from persianmind.checks.hub import check_hub
from persianmind.checks.machine import (
    check_compile,
    check_compiler,
    check_kernels,
    check_packages,
    check_trackers,
)
from persianmind.checks.network import check_network
from persianmind.checks.pci import check_pci
from persianmind.common.device.choice import current_device
from persianmind.common.errors import CheckpointError, RecipeError
from persianmind.engine.registry import backend
from persianmind.model.adapted_layers import check_adapted_layers
from persianmind.model.bases import check_base, stated_positions
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.text.corpus import check_usable
from persianmind.text.spec import source_specs
from persianmind.text.stream import check_sources

MACHINE = (
    one_fact("python", lambda context: sys.version.split()[0]),
    one_fact("packages", lambda context: check_packages()),
    one_fact("device", lambda context: _device(context)),
    one_fact("compiler", lambda context: check_compiler()),
    Check("gpus", check_gpus),
    Check("pci", check_pci),
    Check("host", check_host),
    Check("network", check_network),
    one_fact("disk", state_room),
    Check("disk speed", check_disk_speed),
    Check("file system", check_file_system),
)
# In the order in which a start makes them, the cheapest first.
RECIPE = (
    one_fact("engine config", lambda context: _engine_config(context)),
    one_fact("run folder", lambda context: _run_folder(context)),
    one_fact("base model", lambda context: _base(context.wanted)),
    one_fact("sequence length", lambda context: _seq_len(context)),
    one_fact("sources", lambda context: _sources(context.wanted)),
    one_fact("compile", lambda context: check_compile(context.wanted.train.compile)),
    one_fact("kernels", lambda context: check_kernels(context.wanted.train.kernels)),
    one_fact("trackers", lambda context: check_trackers(context.wanted.train.trackers)),
)
HUB = Check("hub", check_hub, fatal=True)
TEXT = Check("text", lambda context: _text(context))
FIT = Check("memory", check_fit)


def all_checks(context: CheckContext) -> list[Check]:
    """Everything that can be wrong with this machine; with a recipe, with a run of it here as well."""
    return [*MACHINE, HUB] if context.recipe is None else [*MACHINE, *RECIPE, HUB, FIT, TEXT]


def preflight(recipe: Recipe, engine_config: Path, folder: RunFolder, world_size: int) -> None:
    """Every fatal check, before anything is written.

    Raises:
        PersianMindError: the first thing that is wrong, as one line with the fix.
    """
    context = CheckContext(recipe, engine_config, folder, world_size)
    stop_at_first(all_checks(context), context)


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


def _device(context: CheckContext) -> str:
    if context.recipe is None:
        return current_device().required().reason
    return check_device(context.recipe)


def _engine_config(context: CheckContext) -> str:
    backend().resolve_config(context.engine_config, context.wanted, context.ranks)
    return f"{context.engine_config} fits the recipe on {context.ranks} ranks"


def _run_folder(context: CheckContext) -> str:
    context.folder.check(context.wanted)
    return str(context.folder)


def _base(recipe: Recipe) -> str:
    check_base(recipe.base, recipe.train.quantize)
    check_adapted_layers(recipe)
    return recipe.base


def _seq_len(context: CheckContext) -> str:
    recipe = context.wanted
    positions = stated_positions(recipe.base)
    read = {"data.seq_len": recipe.data.seq_len} | recipe.seq_len_keys()  # the first of held-out text as well
    for key, length in read.items():
        if positions is not None and length > positions and not context.folder.has_steps:
            raise RecipeError(
                f"{key}={length}, but {recipe.base} was made for {positions:,} positions "
                f"(max_position_embeddings of its config.json); give {key}={positions} or less"
            )
    known = "of an unknown number of" if positions is None else f"of the base's {positions:,}"
    return f"up to {recipe.longest_seq_len:,} {known} positions"


def _sources(recipe: Recipe) -> str:
    check_sources(recipe.sources)
    check_usable(source_specs(recipe, recipe.stage_sources()))
    return ", ".join(recipe.sources)


def _text(context: CheckContext) -> Iterable[CheckResult]:
    from persianmind.checks.text import check_text  # no start needs the tokenizers it imports

    return check_text(context)

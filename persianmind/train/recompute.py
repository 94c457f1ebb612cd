"""What `train.gradient_checkpointing: auto` comes to, decided once per run before its model is made.

By the planner, from a micro-batch of few layers that runs without values, and from the memory that the
smallest rank has. Written into the run and kept on resume: another machine, or another number of ranks, goes
on with the same arithmetic.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.engine.ranks import Ranks, TorchGroup
from persianmind.estimate.recompute import in_words
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, update_results
from persianmind.run.records import Recompute

if TYPE_CHECKING:
    import torch

    from persianmind.estimate.planner import Estimate
    from persianmind.estimate.target import Target

logger = logging.getLogger(__name__)


def decide_recompute(
    recipe: Recipe,
    folder: RunFolder,
    config: Mapping[str, Any],
    vocabulary: tuple[int, int],
    *,
    engine_config: Path,
    device: torch.device,
    ranks: Ranks,
) -> Recipe:
    """The recipe with `auto` decided: as this run has it already, else by the planner; all ranks together.

    Args:
        config: config.json of the base.
        vocabulary: ids of the base's tokenizer, and new ones.
        engine_config: the engine's own file, as it was given.
    """
    from persianmind.estimate.target import target_here

    if recipe.train.gradient_checkpointing != "auto":
        return recipe
    target = target_here(recipe, ranks.local_size, on_gpu=device.type == "cuda", index=device.index or 0)
    group = TorchGroup(ranks)
    usable_bytes = min(group.all_gather(target.usable_bytes))
    # Rank 0's answer: it alone writes the file.
    recorded = read_results(folder).recompute if ranks.rank == 0 else None
    when = "as this run began" if recorded is not None else "auto"
    if ranks.rank == 0 and recorded is None:
        target = replace(target, usable_bytes=usable_bytes)
        plan = plan_on(target, recipe, config, vocabulary, engine_config, ranks.world_size)
        recorded = Recompute(
            setting=plan.recipe.model_dump(mode="json")["train"]["gradient_checkpointing"],
            needed_bytes=plan.peak.with_reserve,
            usable_bytes=usable_bytes,
        )
        update_results(folder, recompute=recorded)
    answers = group.all_gather(None if recorded is None else recorded.model_dump(mode="json"))
    chosen = Recompute.model_validate(answers[0])
    decided = recipe.with_recompute(chosen.setting)
    fits = chosen.needed_bytes <= usable_bytes
    line = memory_line(decided, config, chosen.needed_bytes, usable_bytes)
    logger.log(logging.INFO if fits else logging.WARNING, f"{line} ({when})")
    return decided


def plan_on(
    target: Target,
    recipe: Recipe,
    config: Mapping[str, Any],
    vocabulary: tuple[int, int],
    engine_config: Path,
    ranks: int,
) -> Estimate:
    """The plan of a recipe on `ranks` such targets; arguments as of `decide_recompute`."""
    from persianmind.estimate.bases import VocabularySize
    from persianmind.estimate.planner import Planner

    base, added = vocabulary
    size = VocabularySize(base, added, added, "this run")
    return Planner(config, size, target, ranks, engine_config).estimate(recipe)


def memory_line(recipe: Recipe, config: Mapping[str, Any], needed_bytes: int, usable_bytes: int) -> str:
    """What is recomputed and what a rank takes with it, for people; says where that is too much."""
    words = in_words(recipe.train.gradient_checkpointing, int(config["num_hidden_layers"]))
    fits = "" if needed_bytes <= usable_bytes else ": it will not fit, `persianmind plan` says what would"
    return (
        f"recompute: {words}; memory per rank at its highest {needed_bytes / 1e9:.2f} of "
        f"{usable_bytes / 1e9:.2f} GB, by the plan{fits}"
    )

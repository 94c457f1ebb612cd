"""Whether a recipe fits into the memory of this machine's GPUs, by the planner."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.checks.device import has_gpu
from persianmind.common.units import size_text
from persianmind.run.log import decided_recipe

NAME = "memory"


def check_fit(context: CheckContext) -> Iterator[CheckResult]:
    """What a rank takes at its highest against what a GPU here has. Takes seconds: a micro-batch is traced.

    Raises:
        BaseModelError: the architecture of the base is not known here.
    """
    recipe = decided_recipe(context.wanted, context.folder)
    if not has_gpu():
        yield CheckResult.ok(NAME, f"no GPU here; persianmind plan {recipe.name} --gpu NAME plans for one")
        return
    memory_bytes = _gpu_bytes()
    if memory_bytes is None:
        yield CheckResult.ok(
            NAME, "not looked at: torch cannot use the GPU here; the line on the device says why"
        )
        return
    from persianmind.estimate.assumptions import DRIVER_RATIO
    from persianmind.estimate.plan import plan_recipe
    from persianmind.estimate.recompute import in_words

    if recipe.train.memory_gb is not None:
        memory_bytes = min(memory_bytes, int(recipe.train.memory_gb * 2**30))
    memory_gb = memory_bytes / 2**30 / (1 - DRIVER_RATIO.value)  # CUDA names what the driver leaves
    plan = plan_recipe(recipe, context.ranks, memory_gb=memory_gb, engine_config=context.engine_config)
    needed = (
        f"{size_text(plan.estimate.peak.with_reserve)} of "
        f"{size_text(plan.planner.target.usable_bytes)} on each rank; "
        f"recomputed: {in_words(plan.estimate.recipe.train.gradient_checkpointing, plan.planner.layers)}"
    )
    if plan.fits:
        yield CheckResult.ok(NAME, needed)
        return
    instead = " ".join(plan.suggestions[0].overrides) if plan.suggestions else "a smaller base or more ranks"
    yield CheckResult.warn(NAME, f"{needed}: it will not fit; would fit: {instead}")


def _gpu_bytes() -> int | None:
    """What a run could have of the first GPU; None where torch cannot use it."""
    import torch

    from persianmind.estimate.target import gpu_part

    return gpu_part() if torch.cuda.is_available() else None

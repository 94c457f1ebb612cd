"""The device, and `train.precision: auto`, decided once per run: bf16 where the hardware multiplies it, fp32
elsewhere.

On a CPU without bf16 instructions torch emulates bf16 matmuls; measured on two AVX2 cores they run at a sixth
of the fp32 rate in the forward pass and far below that in the backward pass.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder

BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last one is what 64-bit Arm calls it


def has_gpu() -> bool:
    """Whether an NVIDIA device is there, without importing torch."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def resolve_precision(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe with a definite precision: the one this run began with, else what this machine is good at.

    A run that goes on elsewhere keeps its precision, or its losses would not be those it began with.
    """
    if recipe.train.precision != "auto":
        return recipe
    begun = load_recipe(str(folder.recipe)).train.precision if folder.recipe.is_file() else "auto"
    chosen = machine_precision() if begun == "auto" else begun
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": chosen})})


def machine_precision() -> Literal["bf16", "fp32"]:
    """bf16 for NVIDIA GPUs and for CPUs that list a bf16 instruction set."""
    return "bf16" if has_gpu() or cpu_flags() & BF16_FLAGS else "fp32"


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the processor, empty where unknown. The first call takes a second."""
    from cpuinfo import get_cpu_info

    return frozenset(get_cpu_info().get("flags", ()))

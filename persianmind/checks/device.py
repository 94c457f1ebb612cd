"""`train.precision: auto`, decided once a run: bf16 where the hardware multiplies it, fp32 elsewhere.

On a CPU without bf16 instructions torch emulates bf16 products; measured on two AVX2 cores they run at a
sixth of the fp32 rate in the forward pass and far below that in the backward pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from persianmind.checks.preflight import has_gpu
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RECIPE

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last one is what 64-bit Arm calls it


def resolve_precision(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with a definite precision: the one this run began with, else what this machine is good at.

    A run that goes on elsewhere keeps its precision, or its losses would not be those it began with.
    """
    if recipe.train.precision != "auto":
        return recipe
    path = run / RECIPE
    begun = load_recipe(str(path)).train.precision if path.is_file() else "auto"
    chosen = machine_precision() if begun == "auto" else begun
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": chosen})})


def machine_precision(cpuinfo: Path = CPUINFO) -> Literal["bf16", "fp32"]:
    """bf16 for NVIDIA cards and for CPUs that list a bf16 instruction set."""
    if has_gpu():
        return "bf16"
    try:
        words = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return "fp32"
    return "bf16" if words & BF16_FLAGS else "fp32"

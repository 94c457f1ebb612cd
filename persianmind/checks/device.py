"""`train.precision: auto`, decided once per run, and the check that the device can train as the recipe asks.

bf16 where the hardware multiplies it, fp32 elsewhere. On a CPU without bf16 instructions torch emulates bf16
matmuls; measured on two AVX2 cores they run at a sixth of the fp32 rate in the forward pass and far below
that in the backward pass. GPUs multiply bf16 from compute capability 8.0 on and emulate it below.

`python -m persianmind.checks.device` prints the flags that DeepSpeed's launcher needs on this machine.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Literal

from persianmind.common.console import run_guarded
from persianmind.common.device.choice import DeviceChoice, current_device
from persianmind.common.device.instructions import INT8_INSTRUCTIONS
from persianmind.common.errors import MachineError
from persianmind.common.log import print_line
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder

BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last one is what 64-bit Arm calls it
BF16_CAPABILITY = (8, 0)
# Two CPU ranks stand for two GPUs; GPUs are counted by DeepSpeed itself.
CPU_LAUNCHER_FLAGS = "--num_accelerators 2"


def has_gpu() -> bool:
    """Whether this process trains on NVIDIA GPUs, without importing torch."""
    return current_device().kind == "cuda"


def resolve_precision(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe with a definite precision: the one this run began with, else what this machine is good at.

    A run that goes on elsewhere keeps its precision, or its losses would not be those it began with.
    """
    if recipe.train.precision != "auto":
        return recipe
    begun = read_run_recipe(folder.recipe).train.precision if folder.recipe.is_file() else "auto"
    chosen = machine_precision() if begun == "auto" else begun
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": chosen})})


def machine_precision() -> Literal["bf16", "fp32"]:
    """bf16 for GPUs of capability 8.0 and up, all of them, and for CPUs that list a bf16 instruction set."""
    choice = current_device()
    if choice.kind == "cuda":
        return "bf16" if choice.gpus and _without_bf16(choice) is None else "fp32"
    return "bf16" if cpu_flags() & BF16_FLAGS else "fp32"


def check_device(recipe: Recipe) -> str:
    """Which device trains, in which precision, and why, in one line. recipe: its precision is resolved.

    Raises:
        MachineError: the GPUs that are there cannot be used, or do not multiply in the recipe's precision.
    """
    choice = current_device().required()
    precision = recipe.train.precision
    if choice.kind == "cpu":
        return f"CPU ({choice.reason}), {precision}{_of_int8(recipe)}"
    missing = _without_bf16(choice)
    if precision == "bf16" and missing is not None:
        raise MachineError(
            f"train.precision is bf16, but {missing}: give train.precision=fp32, and another --output if the "
            "run was begun in bf16"
        )
    if missing is None and not choice.gpus:
        missing = "bf16 needs capability 8.0, which nobody here can tell"
    why = f" ({missing})" if precision == "fp32" and missing is not None else ""
    return f"{choice.reason}, {precision}{why}"


def _of_int8(recipe: Recipe) -> str:
    if recipe.train.quantize != "int8" or cpu_flags() & INT8_INSTRUCTIONS:
        return ""
    return "; int8 by fp32 matmuls, slower than train.quantize=none: this CPU has no VNNI"


def _without_bf16(choice: DeviceChoice) -> str | None:
    """The first visible GPU that does not multiply bf16, in words; None where all known ones do."""
    for gpu in choice.gpus:
        if gpu.capability < BF16_CAPABILITY:
            major, minor = gpu.capability
            return f"{gpu} has compute capability {major}.{minor} and bf16 needs 8.0"
    return None


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the processor, empty where unknown. The first call takes a second."""
    from cpuinfo import get_cpu_info

    return frozenset(get_cpu_info().get("flags", ()))


def print_launcher_flags() -> None:
    """For scripts and the Makefile; nothing where there are GPUs.

    Raises:
        MachineError: the GPUs that are there cannot be used.
    """
    print_line("" if current_device().required().kind == "cuda" else CPU_LAUNCHER_FLAGS)


if __name__ == "__main__":
    sys.exit(run_guarded(print_launcher_flags))

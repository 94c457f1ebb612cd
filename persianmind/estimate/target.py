"""What a recipe is planned for: a GPU by its name or its memory, or the CPUs of this machine."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from persianmind.estimate.assumptions import PROCESS, usable_bytes
from persianmind.estimate.gpus import GpuSpec, find_gpu, known_gpu
from persianmind.recipe import Recipe

REFERENCE_GPU = "RTX 3090"  # of the paper's run
# Weights of a base from which on nobody trains it on a CPU.
TOO_LARGE_FOR_CPU = 500_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where each rank computes. gpu: None: the CPUs of this machine. usable_bytes: that one rank can have.
    source: why this one, in words."""

    gpu: GpuSpec | None
    usable_bytes: int
    source: str

    @property
    def name(self) -> str:
        """For people."""
        return "CPU" if self.gpu is None else self.gpu.name


def choose_target(gpu: str | None, memory_gb: float | None, weights: int, ranks: int) -> Target:
    """By name, else by memory alone, else this machine's GPU, else its CPUs, or the reference run's GPU where
    the base is too large for them.

    Args:
        memory_gb: of each GPU, in units of 2**30 bytes; None: the named GPU's own.
        weights: of the base.

    Raises:
        UsageError: no GPU of this name is known.
    """
    if gpu is not None:
        return _of(find_gpu(gpu), memory_gb, "as named")
    if memory_gb is not None:
        return _of(find_gpu(REFERENCE_GPU), memory_gb, f"memory as given, speed of an {REFERENCE_GPU}")
    if (here := _gpu_here()) is not None:
        return _of(here, None, "the GPU of this machine")
    if weights >= TOO_LARGE_FOR_CPU:
        why = f"no --gpu was given and none is here: the reference run's {REFERENCE_GPU}"
        return _of(find_gpu(REFERENCE_GPU), None, why)
    share = psutil.virtual_memory().total // ranks - int(PROCESS.value)
    return Target(None, share, "no --gpu was given and none is here: the CPUs of this machine")


def with_precision(recipe: Recipe, target: Target) -> Recipe:
    """The recipe with `train.precision: auto` decided as a run on the target decides it."""
    if recipe.train.precision != "auto":
        return recipe
    precision = "bf16" if target.gpu is not None and "bf16" in target.gpu.peak_flops else "fp32"
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})


def _of(gpu: GpuSpec, memory_gb: float | None, source: str) -> Target:
    return Target(gpu, usable_bytes(gpu.memory_gb if memory_gb is None else memory_gb), source)


def _gpu_here() -> GpuSpec | None:
    import torch

    return known_gpu(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None

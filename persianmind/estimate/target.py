"""What a recipe is planned for: a GPU by its name or its memory, or the CPUs of this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from persianmind.common.host_memory import available_bytes
from persianmind.estimate.assumptions import CUDA_CONTEXT, GIB, PROCESS, usable_bytes
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
    return Target(None, host_part(ranks), "no --gpu was given and none is here: the CPUs of this machine")


def limited(target: Target, recipe: Recipe) -> Target:
    """The target with what `train.memory_gb` leaves of it; a GPU does not grow by it."""
    given = recipe.train.memory_gb
    if given is None:
        return target
    usable = int(given * GIB) if target.gpu is None else min(target.usable_bytes, int(given * GIB))
    return replace(target, usable_bytes=usable, source=f"{target.source}; train.memory_gb={given:g}")


def host_part(ranks: int) -> int:
    """Bytes for the tensors of each of `ranks` ranks on this host, of what is free now."""
    return max(0, available_bytes() // ranks - int(PROCESS.value))


def gpu_part(index: int = 0) -> int:
    """Bytes of a GPU of this machine that a rank can have: all that other programs do not hold. What torch's
    own context takes of this process is part of the plan and not taken off here."""
    import torch

    free, total = torch.cuda.mem_get_info(index)
    return min(total, free + torch.cuda.memory_reserved(index) + int(CUDA_CONTEXT.value))


def target_here(recipe: Recipe, ranks: int, *, on_gpu: bool, index: int = 0) -> Target:
    """This machine, for a run that begins on it.

    Args:
        ranks: on this machine.
        index: of this rank's GPU.
    """
    if not on_gpu:
        return limited(Target(None, host_part(ranks), "the CPUs of this machine"), recipe)
    import torch

    spec = known_gpu(torch.cuda.get_device_name(index)) or find_gpu(REFERENCE_GPU)
    return limited(Target(spec, gpu_part(index), "the GPU of this machine"), recipe)


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

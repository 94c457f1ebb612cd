"""What no trace and no sum can say: stated here, each with its source, shown with every plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number that is taken as it stands. value: bytes, or a ratio where the name says so."""

    name: str
    value: float
    source: str


# Of the memory as it is sold. An RTX 3090 of 24 GiB shows 23.69 GiB to CUDA, an RTX 4090 23.65.
DRIVER_RATIO = Assumption(
    "driver_ratio", 0.015, "total capacity in PyTorch's out-of-memory messages of 24 GB GPUs"
)
CUDA_CONTEXT = Assumption(
    "cuda_context_bytes",
    0.75 * GIB,
    "context and loaded kernels, used memory less torch's reserved; 0.73 GiB measured on an H100",
)
NCCL = Assumption(
    "nccl_bytes",
    0.25 * GIB,
    "DeepSpeed's two communicators: 0.19 GiB measured with one channel each, and 6 MiB for every further one",
)
CUBLAS = Assumption(
    "cublas_workspace_bytes",
    2 * 8 * 4096 * 1024,
    "CUBLAS_WORKSPACE_CONFIG=:4096:8, for the threads of forward and backward each",
)
ALLOCATOR = Assumption(
    "allocator_bytes",
    0.35e9,
    "blocks that torch's allocator keeps; 0.38 GB measured on an H100 at 7B, 0.10 at 1B",
)
ALLOCATOR_RATIO = Assumption(
    "allocator_ratio",
    0.05,
    "of activations and temporaries besides: rounding and pieces that fit nothing else",
)
PROCESS = Assumption("process_bytes", 1.5e9, "host memory of a rank: Python, torch and CUDA's libraries")
BUILDER = Assumption("builder_bytes", 0.7e9, "host memory of the process that builds data: libraries, text")

ALL = (DRIVER_RATIO, CUDA_CONTEXT, NCCL, CUBLAS, ALLOCATOR, ALLOCATOR_RATIO, PROCESS, BUILDER)


@dataclass(frozen=True, slots=True)
class DeviceReserve:
    """Bytes of a GPU that no tensor of the run lies in. fragments: what the allocator keeps besides."""

    cuda_context: int
    nccl: int
    fragments: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.cuda_context + self.nccl + self.fragments


def device_reserve(changing_bytes: int) -> DeviceReserve:
    """Beside the tensors of one rank; a single rank has communicators as well.

    Args:
        changing_bytes: of tensors that come and go within a step.
    """
    fragments = ALLOCATOR.value + ALLOCATOR_RATIO.value * changing_bytes
    return DeviceReserve(int(CUDA_CONTEXT.value), int(NCCL.value), int(fragments))


def usable_bytes(memory_gb: float) -> int:
    """What CUDA gives of a GPU sold with `memory_gb` (units of 2**30 bytes)."""
    return int(memory_gb * GIB * (1 - DRIVER_RATIO.value))


def as_json() -> dict[str, dict[str, float | str]]:
    """Every assumption by its name."""
    return {one.name: {"value": one.value, "source": one.source} for one in ALL}


def sentences() -> Iterator[tuple[str, str]]:
    """(name and value, source) for people."""
    for one in ALL:
        value = f"{one.value:.1%}" if one.name.endswith("ratio") else f"{one.value / 1e9:.2f} GB"
        yield f"{one.name.removesuffix('_bytes').replace('_', ' ')}: {value}", one.source

"""What the NVIDIA driver says about this machine, through its own library (NVML); torch is not needed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine. index: in PCI bus order, as nvidia-smi counts. capability: (8, 6) is 8.6."""

    index: int
    name: str
    uuid: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """Every GPU of the machine, whatever is visible to this process.

    driver: its version, None where it cannot be asked. is_readable: False where the library is missing, as in
    containers without the `utility` capability; `gpus` is empty then and nothing is known of them.
    can_peer: whether some pair of GPUs reaches each other's memory, by NVLink or PCIe; None: the driver does
    not say, or there is one GPU. fault: why the driver cannot be used, in NVIDIA's words; None where it can.
    """

    driver: str | None
    gpus: tuple[Gpu, ...]
    is_readable: bool = True
    can_peer: bool | None = None
    fault: str | None = None


def read_inventory() -> GpuInventory:
    """Asks the driver once. Takes some milliseconds; leaves no context on any GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if getattr(error, "value", None) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return GpuInventory(driver=None, gpus=(), is_readable=False)
        return GpuInventory(driver=None, gpus=(), fault=str(error))
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(one) for one in range(pynvml.nvmlDeviceGetCount())]
        gpus = tuple(_read_gpu(pynvml, index, handle) for index, handle in enumerate(handles))
        return GpuInventory(driver, gpus, can_peer=_can_peer(pynvml, handles))
    except pynvml.NVMLError as error:  # one of them has fallen off the bus, or may not be asked
        return GpuInventory(driver=None, gpus=(), fault=str(error))
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _read_gpu(nvml: Any, index: int, handle: Any) -> Gpu:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index,
        str(nvml.nvmlDeviceGetName(handle)),
        str(nvml.nvmlDeviceGetUUID(handle)),
        (int(major), int(minor)),
    )


def _can_peer(nvml: Any, handles: Sequence[Any]) -> bool | None:
    """True as soon as one pair can; None where no pair can for sure and some pair is unknown."""
    verdicts = [_pair_can_peer(nvml, one, other) for one, other in combinations(handles, 2)]
    if any(verdicts):
        return True
    return False if verdicts and None not in verdicts else None


def _pair_can_peer(nvml: Any, one: Any, other: Any) -> bool | None:
    """NVLink is asked for by itself: a bridged pair of GeForce has it where PCIe reads are switched off."""
    found: list[int] = []
    for way in (nvml.NVML_P2P_CAPS_INDEX_NVLINK, nvml.NVML_P2P_CAPS_INDEX_READ):
        with contextlib.suppress(nvml.NVMLError):  # not every driver and system answers (WSL2)
            found.append(int(nvml.nvmlDeviceGetP2PStatus(one, other, way)))
    if nvml.NVML_P2P_STATUS_OK in found:
        return True
    return None if len(found) < 2 or nvml.NVML_P2P_STATUS_UNKNOWN in found else False

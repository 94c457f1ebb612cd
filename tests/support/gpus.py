"""Imitated GPUs: a fake root with the driver's files, and NVIDIA's library with its real call surface."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pynvml
import pytest

from persianmind.common.device.choice import DeviceChoice, decide_device
from persianmind.common.device.torch_build import TorchBuild

CUDA_13, CUDA_12 = TorchBuild("2.13.0", (13, 0)), TorchBuild("2.13.0+cu126", (12, 6))
RTX_3090, RTX_2080, GTX_1080 = (
    ("NVIDIA GeForce RTX 3090", 8, 6),
    ("NVIDIA GeForce RTX 2080 Ti", 7, 5),
    ("GTX 1080", 6, 1),
)
RTX_5090, A6000 = ("NVIDIA GeForce RTX 5090", 12, 0), ("NVIDIA RTX A6000", 8, 6)
NVML_FUNCTIONS = (
    "nvmlInit", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetUUID",
    "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetP2PStatus",
)  # fmt: skip


@dataclass
class Machine:
    """An imitated machine. kinds: (name, major, minor) of each GPU. peers: (way, GPU, GPU) -> status; the
    statuses left out are "not supported". init_error: NVML's code instead of an answer."""

    kinds: Sequence[tuple[str, int, int]] = ()
    driver: str = "580.65.06"
    wsl: bool = False
    device_files: int | None = None
    init_error: int | None = None
    peers: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def write_root(self, root: Path) -> Path:
        """/dev and /proc as the driver would fill them."""
        (root / "dev").mkdir(parents=True, exist_ok=True)
        if self.wsl:
            (root / "dev" / "dxg").touch()
            (root / "usr/lib/wsl/lib").mkdir(parents=True)
            (root / "usr/lib/wsl/lib/libcuda.so.1").touch()
            return root
        count = len(self.kinds) if self.device_files is None else self.device_files
        for name in ["nvidiactl", "nvidia-uvm", *(f"nvidia{index}" for index in range(count))]:
            (root / "dev" / name).touch()
        version = root / "proc/driver/nvidia/version"
        version.parent.mkdir(parents=True)
        version.write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {self.driver}  Sun May 12 2024\n"
        )
        return root

    def nvml(self) -> ModuleType:
        """The module `pynvml` of this machine; errors and constants are the real module's own."""
        fake = ModuleType("pynvml")
        for name in dir(pynvml):
            if name.startswith(("NVML_", "NVMLError")):
                setattr(fake, name, getattr(pynvml, name))
        for name in NVML_FUNCTIONS:
            setattr(fake, name, getattr(self, f"_{name}"))
        return fake

    def _nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)

    def _nvmlShutdown(self) -> None:
        pass

    def _nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def _nvmlDeviceGetCount(self) -> int:
        return len(self.kinds)

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def _nvmlDeviceGetName(self, handle: int) -> str:
        return self.kinds[handle][0]

    def _nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}{handle}{handle}"

    def _nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return self.kinds[handle][1:]

    def _nvmlDeviceGetP2PStatus(self, device1: int, device2: int, p2pIndex: int) -> int:
        status = self.peers.get((p2pIndex, device1, device2), pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)
        if status < 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return status


def decide_imitated(
    patch: pytest.MonkeyPatch,
    root: Path,
    machine: Machine,
    build: TorchBuild | None = CUDA_13,
    **environ: str,
) -> DeviceChoice:
    """What would be decided on an imitated machine."""
    patch.setitem(sys.modules, "pynvml", machine.nvml())
    return decide_device(machine.write_root(root), environ, torch_build=lambda: build)

"""The machine: GPUs, driver, power limits, PCIe links, peer-to-peer, versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.nvml import NvmlMissingError, open_nvml
from persianmind.gpucheck.setting import PartSetting

GIB = 1 << 30
VARIABLES = ("CUDA_", "NCCL_", "TORCH_", "PYTORCH_", "DS_", "OMP_NUM_THREADS", "CUBLAS_")


def measure_machine(setting: PartSetting, findings: Findings) -> None:
    """Nothing here is a check: what NVML or torch does not tell is None."""
    findings.record(host=_host(), torch=_torch(), variables=_variables())
    try:
        with open_nvml() as nvml:
            findings.record(
                driver=nvml.ask("nvmlSystemGetDriverVersion"), nvml=[nvml.describe(i) for i in nvml.gpus]
            )
    except NvmlMissingError as error:
        findings.record(driver=None, nvml=[], nvml_missing=str(error))
    if setting.small:
        findings.summarise(f"torch {torch.__version__} on the CPU, {os.cpu_count()} cores")
        return
    count = torch.cuda.device_count()
    findings.record(gpus=[_gpu(index) for index in range(count)], p2p=_peers(count))
    findings.expect("torch sees a GPU", count > 0, gpus=count)
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(count)}))
    findings.summarise(f"{count} x {names}, torch {torch.__version__}, CUDA {torch.version.cuda}")


def _host() -> dict[str, Any]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * size / GIB, 1),
        "shared_memory_gib": _shared_memory_gib(),
        "wsl": Path("/dev/dxg").exists(),
    }


def _shared_memory_gib() -> float | None:
    """NCCL's way between GPUs without peer-to-peer goes through it; a container's is often 64 MB."""
    if not Path("/dev/shm").is_dir():
        return None
    found = os.statvfs("/dev/shm")
    return round(found.f_blocks * found.f_frsize / GIB, 2)


def _torch() -> dict[str, Any]:
    has_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    nccl: tuple[int, ...] | None = torch.cuda.nccl.version() if has_nccl else None  # type: ignore[no-untyped-call]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "nccl": None if nccl is None else ".".join(map(str, nccl)),
        "architectures": torch.cuda.get_arch_list(),
    }


def _variables() -> dict[str, str]:
    """Those that change what is measured."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def _gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(total / GIB, 2),
        "free_gib": round(free / GIB, 2),
        "l2_mib": round(getattr(found, "L2_cache_size", 0) / (1 << 20), 1),
    }


def _peers(count: int) -> list[list[bool]]:
    """[i][j]: whether GPU i can read GPU j's memory."""
    return [[i == j or torch.cuda.can_device_access_peer(i, j) for j in range(count)] for i in range(count)]

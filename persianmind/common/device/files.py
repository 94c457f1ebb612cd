"""The files by which the NVIDIA driver shows itself, on Linux and on Windows' Linux (WSL2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

VERSION_FILE = "proc/driver/nvidia/version"


@dataclass(frozen=True, slots=True)
class GpuFiles:
    """count: device files; 1 on WSL2, which has one for all. driver: from /proc, None where not said."""

    count: int
    driver: str | None
    is_wsl: bool


def find_gpu_files(root: Path) -> GpuFiles | None:
    """What stands below `root`; None: no NVIDIA GPU."""
    devices = [path for path in (root / "dev").glob("nvidia[0-9]*") if path.name[len("nvidia") :].isdigit()]
    # /dev/dxg is there for every GPU maker; the CUDA library only with NVIDIA's driver on the Windows side.
    is_wsl = (root / "dev" / "dxg").exists() and any((root / "usr/lib/wsl/lib").glob("libcuda.so*"))
    if not devices and not is_wsl:
        return None
    return GpuFiles(len(devices) or 1, _driver_version(root / VERSION_FILE), is_wsl and not devices)


def _driver_version(path: Path) -> str | None:
    """From a line such as "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 ..."."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None

"""The one decision which device trains, and why: before torch is imported and before anything is written.

Left to themselves torch and DeepSpeed take the CPU in silence when the driver is too old, when torch is a CPU
build or when the GPUs may not be opened; a 7B would then train on the CPU. Here each of these is a problem
with a name and a fix; the CPU is chosen where there is no GPU or where somebody asked for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from persianmind.common.device.files import GpuFiles, find_gpu_files
from persianmind.common.device.nvml import Gpu, GpuInventory, read_inventory
from persianmind.common.device.problems import build_problem, driver_problem, gpu_problem
from persianmind.common.device.torch_build import TorchBuild, read_torch_build
from persianmind.common.errors import MachineError

VISIBLE, FORCED = "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR"
NO_FILES = "NoDevFiles"  # what some schedulers set to hide every GPU
INSTEAD = f'; {VISIBLE}="" trains on the CPU instead'


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """What trains, and why.

    kind: "cuda" also where a problem keeps the GPUs from being used. gpus: those this process sees, in CUDA's
    order; empty on the CPU, and where the driver's library is missing. count: how many there are. driver: its
    version, None where unknown. reason: one line. problem: why training must not start, with the fix.
    """

    kind: Literal["cpu", "cuda"]
    reason: str
    gpus: tuple[Gpu, ...] = ()
    count: int = 0
    driver: str | None = None
    can_peer: bool | None = None
    is_wsl: bool = False
    problem: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The GPUs' names, in order."""
        return tuple(gpu.name for gpu in self.gpus)

    @property
    def capabilities(self) -> tuple[tuple[int, int], ...]:
        """Their compute capabilities, in order."""
        return tuple(gpu.capability for gpu in self.gpus)

    def required(self) -> DeviceChoice:
        """Itself, where training may start on it.

        Raises:
            MachineError: `problem`.
        """
        if self.problem is not None:
            raise MachineError(self.problem)
        return self


@cache
def current_device() -> DeviceChoice:
    """The decision for this process, made once: later changes of the environment are our own."""
    return decide_device()


def decide_device(
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
    inventory: Callable[[], GpuInventory] = read_inventory,
    torch_build: Callable[[], TorchBuild | None] = read_torch_build,
) -> DeviceChoice:
    """Looks at device files, environment, driver and torch's build; never raises, imports no torch.

    Args:
        root: stands for / where device files and the driver's version are looked for.
        environ: `os.environ` unless given.
        inventory: asks the driver.
        torch_build: what torch was built for, None where it is not installed.
    """
    environ = os.environ if environ is None else environ
    forced, visible = environ.get(FORCED), environ.get(VISIBLE)
    if forced not in (None, "", "cpu", "cuda"):
        return _refused(f"{FORCED}={forced}: this trainer knows cpu and cuda; unset it")
    if forced == "cpu":
        return DeviceChoice("cpu", f"{FORCED}=cpu asks for it")
    files = find_gpu_files(root)
    if files is None:
        if forced == "cuda":
            return _refused(f"{FORCED}=cuda, but there is no NVIDIA GPU here")
        return DeviceChoice("cpu", "no NVIDIA GPU on this machine")
    if is_hidden(visible):
        if forced == "cuda":
            return _refused(f'{FORCED}=cuda, but {VISIBLE}="{visible}" hides every GPU; unset one of them')
        return DeviceChoice("cpu", f'{VISIBLE}="{visible}" hides the GPUs of this machine')
    return _decide_gpu(files, visible, inventory(), torch_build())


def is_hidden(visible: str | None) -> bool:
    """Whether a value of CUDA_VISIBLE_DEVICES leaves no GPU; CUDA stops at the first invalid entry."""
    if visible is None:
        return False
    first = visible.split(",")[0].strip()
    return first in ("", NO_FILES) or first.startswith("-")


def _decide_gpu(
    files: GpuFiles, visible: str | None, found: GpuInventory, build: TorchBuild | None
) -> DeviceChoice:
    """GPUs are there and wanted: whether they can be used."""
    driver = found.driver or files.driver
    gpus = _visible(found.gpus, visible)
    choice = DeviceChoice(
        "cuda",
        _describe(gpus, files.count, driver),
        gpus=gpus,
        count=len(gpus) if found.is_readable else _count(files.count, visible),
        driver=driver,
        can_peer=found.can_peer,
        is_wsl=files.is_wsl,
    )
    problem = driver_problem(found, visible, gpus) or build_problem(build, driver) or gpu_problem(gpus, build)
    return choice if problem is None else replace(choice, problem=problem + INSTEAD)


def _visible(gpus: tuple[Gpu, ...], visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows this process: by number in PCI order, or by a UUID's start."""
    if visible is None:
        return gpus
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdigit():
            match = [gpu for gpu in gpus if gpu.index == int(entry)]
        elif entry.startswith("MIG-"):
            match = list(gpus[:1])  # a slice of a GPU; machines with slices hold one kind of GPU
        else:
            match = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if len(match) != 1:
            break  # as CUDA does: an invalid entry hides itself and all after it
        chosen += match
    return tuple(chosen)


def _count(files: int, visible: str | None) -> int:
    return files if visible is None else len(visible.split(","))


def _describe(gpus: tuple[Gpu, ...], count: int, driver: str | None) -> str:
    version = f"driver {driver}" if driver else "driver unknown"
    if not gpus:
        return f"{count} GPU(s) of unknown kind (no NVML library here), {version}"
    kinds = {(gpu.name, gpu.capability): 0 for gpu in gpus}
    for gpu in gpus:
        kinds[gpu.name, gpu.capability] += 1
    parts = [f"{n} x {name} (capability {c[0]}.{c[1]})" for (name, c), n in kinds.items()]
    return f"{', '.join(parts)}, {version}"


def _refused(problem: str) -> DeviceChoice:
    return DeviceChoice("cuda", problem, problem=problem)

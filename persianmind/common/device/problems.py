"""What keeps GPUs that are there from being used, each in one line with the fix; None where nothing does."""

from __future__ import annotations

from persianmind.common.device.nvml import Gpu, GpuInventory
from persianmind.common.device.torch_build import INDEXES, TorchBuild, driver_major, usable_index

# Neither CUDA 13's libraries nor this project know older GPUs.
OLDEST_CAPABILITY = (7, 5)
NEWEST_INDEX, NEWEST_DRIVER = INDEXES[0]


def driver_problem(found: GpuInventory, visible: str | None, gpus: tuple[Gpu, ...]) -> str | None:
    """The driver does not answer, or lists none. visible: CUDA_VISIBLE_DEVICES; it leaves `gpus`."""
    if found.fault is not None:
        return (
            f"the NVIDIA driver cannot be used ({found.fault}): `nvidia-smi` must work first; after a driver "
            "update restart the machine, in a container give it the GPUs (--gpus all)"
        )
    if found.is_readable and not found.gpus:
        return "there are GPU device files, but the NVIDIA driver lists no GPU; does `nvidia-smi` list them?"
    if found.is_readable and not gpus:
        have = ", ".join(str(gpu.index) for gpu in found.gpus)
        return f'CUDA_VISIBLE_DEVICES="{visible}" names no GPU of this machine (it has {have}); unset it'
    return None


def build_problem(build: TorchBuild | None, driver: str | None) -> str | None:
    """torch was not built for this machine. driver: its version, None where unknown."""
    if build is None:
        return None
    if build.cuda is None:
        return (
            f"this machine has an NVIDIA GPU, but torch {build.version} is built for {build.target}: "
            f"{_install(driver)}"
        )
    needed = build.least_driver
    if driver is None or needed is None or driver_major(driver) >= needed:
        return None
    return (
        f"the NVIDIA driver {driver} is too old for torch {build.version}, whose CUDA "
        f"{build.cuda[0]}.{build.cuda[1]} needs {needed} or newer: {_install(driver)}"
    )


def gpu_problem(gpus: tuple[Gpu, ...], build: TorchBuild | None) -> str | None:
    """A GPU that torch has no kernels for; where others are fine, the line says how to leave it out."""
    old = [gpu for gpu in gpus if gpu.capability < OLDEST_CAPABILITY]
    new = [gpu for gpu in gpus if build is not None and build.lacks(gpu.capability)]
    if not (unusable := old or new):
        return None
    major, minor = unusable[0].capability
    fine = ",".join(str(gpu.index) for gpu in gpus if gpu not in old + new)
    leave_out = f"CUDA_VISIBLE_DEVICES={fine} leaves it out" if fine else "train on another machine"
    if old:
        fix = f"7.5 (RTX 20 series) is the least that can train; {leave_out}"
    else:
        fix = f"newer than the CUDA of this torch; `make setup TORCH_INDEX={NEWEST_INDEX}`, or {leave_out}"
    return f"{unusable[0]} has compute capability {major}.{minor}: {fix}"


def _install(driver: str | None) -> str:
    """How to get a torch that runs on this driver."""
    update = f"update the driver to {NEWEST_DRIVER} or newer"
    index = usable_index(driver)
    if index is None:
        return update
    setup = f"`make setup TORCH_INDEX={index}`"
    return f"{setup} installs one that fits" if index == NEWEST_INDEX else f"{update}, or {setup}"

"""Reading and setting the power limits of NVIDIA GPUs through NVML, and putting them back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.atomic import fsync_folder
from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import PowerLimitError

BY_HAND = "set the limits of the GPUs by hand (nvidia-smi -pl WATTS), then delete it"


@dataclass(frozen=True)
class GpuLimit:
    """One GPU: the limit now, and what the GPU allows, in watts."""

    index: int
    watts: float
    least: float
    most: float


def read_limits() -> list[GpuLimit]:
    """The limits of all GPUs of this machine.

    Raises:
        PowerLimitError: no NVIDIA GPU, no driver, or GPUs whose limit cannot be read.
    """
    with _nvml() as nvml, _named("the power limits of the GPUs cannot be read"):
        limits = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            milliwatts = nvml.nvmlDeviceGetPowerManagementLimit(handle)
            least, most = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
            limits.append(GpuLimit(index, milliwatts / 1000, least / 1000, most / 1000))
    if not limits:
        raise PowerLimitError("the NVIDIA driver lists no GPU, so there is no power limit to try")
    return limits


def set_limit(index: int, watts: float) -> None:
    """Sets one GPU's limit.

    Raises:
        PowerLimitError: no rights (it needs root), or a value the GPU refuses.
    """
    with _nvml() as nvml, _named(f"GPU {index} cannot be set to {watts:g} W"):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        nvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1000))


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVIDIA's management library, open while the block runs."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise PowerLimitError(
            f"power limits need an NVIDIA GPU and its driver, and this machine has none ({error}); on a CPU "
            "there is nothing to sweep"
        ) from None
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Names what failed, and says where root's rights are missing."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        hint = "; run it as root" if isinstance(error, pynvml.NVMLError_NoPermission) else ""
        raise PowerLimitError(f"{what}: {error}{hint}") from None


@contextmanager
def restored_limits(note: Path) -> Iterator[list[GpuLimit]]:
    """Yields today's limits and puts them back at the end.

    They are first written to `note`, so that after a kill -9 the next call restores them.

    Raises:
        PowerLimitError: the limits cannot be read or put back.
    """
    restore_from(note)
    limits = read_limits()
    write_checked(note, {"limits": [{"index": gpu.index, "watts": gpu.watts} for gpu in limits]})
    try:
        yield limits
    finally:
        restore_from(note)


def restore_from(note: Path) -> bool:
    """Puts back what an earlier call that was killed left changed; False when there was nothing to do.

    Raises:
        DamagedFileError: the note is not as it was written.
        PowerLimitError: a limit could not be set.
    """
    if not note.is_file():
        return False
    saved: list[dict[str, Any]] = read_checked(note, BY_HAND)["limits"]
    failed = []
    for gpu in saved:
        try:
            set_limit(int(gpu["index"]), float(gpu["watts"]))
        except PowerLimitError as error:
            failed.append(f"GPU {gpu['index']} to {gpu['watts']:g} W ({error})")
    if failed:
        raise PowerLimitError(
            f"power limits could not be put back: {'; '.join(failed)}; do it by hand: {json.dumps(saved)}"
        )
    note.unlink()
    fsync_folder(note.parent)
    return True

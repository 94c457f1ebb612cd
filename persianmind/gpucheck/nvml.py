"""NVML as the check reads it: what a GPU, a driver or a version of nvidia-ml-py does not tell is None."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from persianmind.common.errors import PersianMindError


class NvmlMissingError(PersianMindError):
    """NVML cannot be opened: no NVIDIA driver, or none that this process may talk to."""


class NvmlReader:
    """NVML while it is open."""

    def __init__(self, module: Any) -> None:
        self._nvml = module
        self.gpus = range(int(module.nvmlDeviceGetCount()))

    def ask(self, name: str, *arguments: Any) -> Any:
        """Calls one function; None where it is missing, not supported or not permitted."""
        function = getattr(self._nvml, name, None)
        if function is None:
            return None
        try:
            value = function(*arguments)
        except self._nvml.NVMLError:
            return None
        return value.decode() if isinstance(value, bytes) else value

    def of(self, index: int, name: str, *arguments: Any) -> Any:
        """The same of one GPU."""
        return self.ask(name, self._nvml.nvmlDeviceGetHandleByIndex(index), *arguments)

    def index_of(self, uuid: str) -> int | None:
        """NVML's number of the GPU with this UUID, whatever CUDA_VISIBLE_DEVICES makes of the order."""
        wanted = f"GPU-{uuid.removeprefix('GPU-')}"
        return next((index for index in self.gpus if self.of(index, "nvmlDeviceGetUUID") == wanted), None)

    def energy_j(self, index: int) -> float | None:
        """The GPU's energy counter, since its driver was loaded."""
        return _scaled(self.of(index, "nvmlDeviceGetTotalEnergyConsumption"), 1e-3)

    def power_w(self, index: int) -> float | None:
        """What it draws now, as its sensor averages it."""
        return _scaled(self.of(index, "nvmlDeviceGetPowerUsage"), 1e-3)

    def describe(self, index: int) -> dict[str, Any]:
        """What stays the same while the check runs."""
        return {
            "name": self.of(index, "nvmlDeviceGetName"),
            "power_limit_w": _scaled(self.of(index, "nvmlDeviceGetEnforcedPowerLimit"), 1e-3),
            "power_limits_w": self.of(index, "nvmlDeviceGetPowerManagementLimitConstraints"),
            "pcie_generation": self.of(index, "nvmlDeviceGetCurrPcieLinkGeneration"),
            "pcie_generation_at_most": self.of(index, "nvmlDeviceGetMaxPcieLinkGeneration"),
            "pcie_width": self.of(index, "nvmlDeviceGetCurrPcieLinkWidth"),
            "pcie_width_at_most": self.of(index, "nvmlDeviceGetMaxPcieLinkWidth"),
            "temperature_c": self.of(index, "nvmlDeviceGetTemperature", 0),
            "has_energy_counter": self.energy_j(index) is not None,
        }


@contextmanager
def open_nvml() -> Iterator[NvmlReader]:
    """NVML while the block runs.

    Raises:
        NvmlMissingError: there is none here.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlMissingError(f"no NVML here ({error})") from None
    try:
        yield NvmlReader(pynvml)
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value) * factor

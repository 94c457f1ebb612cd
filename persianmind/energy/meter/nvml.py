"""Reading limits, clocks, throttling and Xid errors through nvidia-ml-py, one query at a time.

A query that a GPU does not support, or that this user may not make, is tried once and then left out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from persianmind.energy.meter.meanings import reasons_of
from persianmind.run.energy_records import GpuFacts

MAX_XIDS_PER_SAMPLE = 16  # a failing GPU can send them without end


@dataclass(frozen=True, slots=True)
class GpuLook:
    """One look at one GPU; None: it cannot be read."""

    power_limit_w: float | None
    clock_mhz: float | None
    temperature_c: float | None
    reasons: frozenset[str]


@dataclass
class NvmlGpu:
    """One GPU. `missing`: query -> why it was left out.

    Raises:
        pynvml.NVMLError: the driver has no GPU of this number.
    """

    index: int
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import pynvml

        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(self.index)
        self._reasons = self._reasons_query()
        self.facts = GpuFacts(
            gpu=self.name,
            power_limit_w=self._ask("power limit", self._power_limit_w),
            default_limit_w=self._ask("default power limit", self._default_limit_w),
            max_clock_mhz=self._ask("highest clock", lambda: self._clock("Max")),
        )
        self.look()

    @property
    def name(self) -> str:
        """As in the ledger's readings."""
        return f"gpu{self.index}"

    def look(self) -> GpuLook:
        """Everything that changes, now."""
        bits = self._ask("throttle reasons", self._reasons)
        return GpuLook(
            power_limit_w=self._ask("power limit", self._power_limit_w),
            clock_mhz=self._ask("clocks", lambda: self._clock("")),
            temperature_c=self._ask("temperature", self._temperature),
            reasons=frozenset() if bits is None else reasons_of(bits),
        )

    def _ask(self, what: str, query: Callable[[], Any]) -> Any:
        if what in self.missing:
            return None
        try:
            return query()
        except Exception as error:  # a driver may raise anything; the joules are counted on
            self.missing[what] = str(error)
            return None

    def _reasons_query(self) -> Callable[[], int]:
        """By its name since driver 535, else by the older one."""
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        queries = [getattr(self._nvml, name) for name in names if hasattr(self._nvml, name)]
        for query in queries[:-1]:
            try:
                query(self._handle)
            except self._nvml.NVMLError:
                continue
            return lambda: int(query(self._handle))
        return lambda: int(queries[-1](self._handle))

    def _power_limit_w(self) -> float:
        return float(self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)) / 1000

    def _default_limit_w(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerManagementDefaultLimit(self._handle)) / 1000

    def _clock(self, most: str) -> int:
        query = getattr(self._nvml, f"nvmlDeviceGet{most}ClockInfo")
        return int(query(self._handle, self._nvml.NVML_CLOCK_SM))

    def _temperature(self) -> float:
        return float(self._nvml.nvmlDeviceGetTemperature(self._handle, self._nvml.NVML_TEMPERATURE_GPU))


class XidEvents:
    """The Xid errors of some GPUs, as the driver reports them. `missing`: why a GPU's are not seen."""

    def __init__(self, gpus: Sequence[NvmlGpu]) -> None:
        import pynvml

        self._nvml = pynvml
        self.missing: dict[str, str] = {}
        self._names: dict[int | None, str] = {}  # by address: a GPU that is lost no longer says its index
        self._set: Any = None
        try:
            events = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError as error:
            self.missing = {gpu.name: str(error) for gpu in gpus}
            return
        for gpu in gpus:
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
                pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
                self._names[_address(handle)] = gpu.name
                self._set = events
            except pynvml.NVMLError as error:
                self.missing[gpu.name] = str(error)

    def take(self) -> Iterator[tuple[str, int]]:
        """(gpu, Xid) of what came since the last call; never waits."""
        for _ in range(MAX_XIDS_PER_SAMPLE if self._set is not None else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                if event.eventType & self._nvml.nvmlEventTypeXidCriticalError:
                    name = self._names.get(_address(event.device), "a GPU")
                    yield name, int(event.eventData)
            except self._nvml.NVMLError_Timeout:
                return
            except self._nvml.NVMLError:
                self._set = None  # the driver itself is gone
                return


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value

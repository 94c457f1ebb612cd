"""The one place that touches codecarbon: which parts of this machine can be counted, and how well.

codecarbon finds the hardware (NVML, AMD SMI, RAPL, powermetrics, or its own estimates) and reads it. Its own
schedulers, files, network calls and CO2 sums are not used: we read each part ourselves, once per tick, so
that every part of every interval lands in our ledger with its source. Importing codecarbon takes about 0.3 s
and finding the hardware 2 s, so both happen in the meter's own process only.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

from persianmind.energy.meter.models import cpu_reading, memory_reading, names_a_model
from persianmind.run.energy_records import EnergyReading

JOULES_PER_KWH = 3_600_000.0

Kind = Literal["measured", "estimated"]
MEASURED: Final = "measured"
ESTIMATED: Final = "estimated"


class Hardware:
    """The counted parts of this machine. `cpu_tdp_w` is the CPU's power where it has no counter.

    unknown: by part that is not counted because nobody knows its power, what would make it known.

    Raises:
        RuntimeError: codecarbon found nothing to count, or is a version whose parts look different.
    """

    def __init__(self, cpu_tdp_w: float | None = None) -> None:
        import codecarbon

        # codecarbon prints at import and at construction, before its own log_level applies.
        logging.getLogger("codecarbon").disabled = True
        tracker = codecarbon.OfflineEmissionsTracker(
            country_iso_code="USA",  # it asks for one; its CO2 is not used
            tracking_mode="machine",
            # Every output is named and off: ~/.codecarbon.config could switch files or uploads on.
            save_to_file=False,
            save_to_api=False,
            save_to_logger=False,
            save_to_prometheus=False,
            save_to_logfire=False,
            output_handlers=[],
            allow_multiple_runs=True,
            pue=1.0,
            log_level="critical",
        )
        self.version = str(codecarbon.__version__)
        try:
            tracker._ensure_hardware_ready()
            self._parts: list[Any] = list(tracker._hardware)
            self.host = {key: tracker._conf.get(key) for key in _HOST_KEYS}
        except AttributeError as error:
            raise RuntimeError(f"codecarbon {self.version} is not understood ({error})") from None
        if not self._parts:
            raise RuntimeError(f"codecarbon {self.version} found no hardware to count")
        self._cpu_tdp_w = cpu_tdp_w
        self.unknown: dict[str, str] = {}
        for part in [part for part in self._parts if _is_cpu_estimate(part)]:
            if cpu_tdp_w is not None:
                part._tdp = cpu_tdp_w
            elif not _is_known(part):
                self._parts.remove(part)
                self.unknown["cpu"] = (
                    f"the power of this CPU ({part._model}) is not known and not counted; set "
                    "energy.cpu_tdp_w to the thermal design power of its data sheet"
                )

    def nvidia_gpus(self) -> list[int]:
        """The numbers of the NVIDIA GPUs that are counted, as NVML has them."""
        gpus = [part for part in self._parts if type(part).__name__ == "GPU"]
        return [
            device.gpu_index
            for part in gpus
            for device in part.devices.devices
            if device.gpu_index in set(part._get_gpu_ids()) and type(device).__name__.startswith("Nvidia")
        ]

    def start(self) -> None:
        """Begins counting: what was used before does not belong to the first reading."""
        for part in self._parts:
            part.start()

    def read(self, seconds: float) -> tuple[list[EnergyReading], dict[str, str]]:
        """Joules of every part over the last `seconds` (since `start` or the last `read`).

        A part that cannot be read does not stop the others: it is missing from the readings and named, with
        the reason, in the second result.
        """
        readings: list[EnergyReading] = []
        failures: dict[str, str] = {}
        for part in self._parts:
            if type(part).__name__ == "GPU":
                _read_gpus(part, seconds, readings, failures)
                continue
            try:
                _, energy = part.measure_power_and_energy(last_duration=seconds)
                readings.append(self._describe(part, float(energy.kWh) * JOULES_PER_KWH, seconds))
            except Exception as error:  # a driver may raise anything; the training must not notice
                failures[type(part).__name__.lower()] = f"{type(error).__name__}: {error}"
        return readings, failures

    def _describe(self, part: Any, joules: float, seconds: float) -> EnergyReading:
        """Names a part's energy and says where the number comes from.

        codecarbon's class names are compared as text, as codecarbon itself does.
        """
        name = type(part).__name__
        if name == "CPU":
            if _is_cpu_estimate(part):
                return cpu_reading(seconds, joules, part._tdp, self._tdp_source(part))
            return _reading("cpu", joules, MEASURED, _CPU_COUNTERS.get(part._mode, str(part._mode)))
        if name == "RAM":
            return memory_reading(seconds, float(part.machine_memory_GB), joules)
        if name == "AppleSiliconChip":
            return _reading(f"soc-{part.chip_part}".lower(), joules, MEASURED, "powermetrics")
        if name == "Raspberry":
            return _reading(str(part.chip_part).lower(), joules, MEASURED, "board power controller")
        return _reading(name.lower(), joules, ESTIMATED, f"codecarbon {name}")

    def _tdp_source(self, part: Any) -> str:
        whose = "the recipe's" if self._cpu_tdp_w is not None else f"codecarbon's (for {part._model})"
        how = "scaled by load" if part._mode == "cpu_load" else "at a constant fraction of it"
        return f"{whose} thermal design power of {part._tdp:g} W, {how}"


_HOST_KEYS = (
    "os",
    "python_version",
    "cpu_count",
    "cpu_physical_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
)


def _reading(component: str, joules: float, kind: Kind, source: str) -> EnergyReading:
    return EnergyReading(component=component, joules=joules, kind=kind, source=source)


def _read_gpus(part: Any, seconds: float, readings: list[EnergyReading], failures: dict[str, str]) -> None:
    """Reads each GPU by itself: codecarbon's own loop stops at the first that fails, and the numbers of the
    rest would then be those of the interval before."""
    from codecarbon.core.units import Time

    counted = set(part._get_gpu_ids())
    for device in part.devices.devices:
        if device.gpu_index not in counted:
            continue
        name = f"gpu{device.gpu_index}"
        try:
            device.sample_power()  # does something only on GPUs without an energy counter
            device.delta(Time.from_seconds(seconds))
            joules = float(device.energy_delta.kWh) * JOULES_PER_KWH
            readings.append(_reading(name, joules, MEASURED, _gpu_source(device)))
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"


def _gpu_source(device: Any) -> str:
    vendor = "NVML" if type(device).__name__.startswith("Nvidia") else "AMD SMI"
    how = "power readings" if device._use_power_fallback else "energy counter"
    return f"{vendor} {how} ({device._gpu_name})"


def _is_cpu_estimate(part: Any) -> bool:
    return type(part).__name__ == "CPU" and part._mode in ("cpu_load", "constant")


def _is_known(part: Any) -> bool:
    """Whether codecarbon's table has this CPU; of others it takes some watts per thread."""
    from codecarbon.core.cpu import TDP

    if part._is_generic_tdp or not names_a_model(part._model):
        return False
    return TDP()._get_cpu_power_from_registry(part._model) is not None


_CPU_COUNTERS = {
    "intel_rapl": "RAPL counter",
    "windows_emi": "Windows energy meter",
    "intel_power_gadget": "Intel Power Gadget",
}

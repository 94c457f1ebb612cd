"""The account of four machines, each line as people read it: what is measured, what a model says, what nobody
knows. Their parts are codecarbon's own classes, over counters and sizes that are known here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import codecarbon
import pytest
from codecarbon.core.units import Energy as CodecarbonEnergy
from codecarbon.external.hardware import CPU
from codecarbon.external.ram import RAM

from persianmind.energy.ledger import read_ledger
from persianmind.energy.meter.hardware import Hardware
from persianmind.energy.meter.models import memory_reading, names_a_model
from persianmind.energy.show import energy_text, everyday_text
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.run.energy_records import EnergySample, EnergyStart
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase
from tests.energy.ledgers import MORNING, write

SECONDS = 3600.0
TWO_MODELS = "half-way between two models for {} GB: Crucial's 3 W per 8 GB, codecarbon's 5 W per module"
LAPTOP_CPU, LAPTOP_TDP_W = "AMD Ryzen 7 5800U", 15.0


class GPU:
    """A board at 300 W, as codecarbon's class of this name reads it through NVML."""

    def __init__(self) -> None:
        device = type("NvidiaGPUDevice", (), {})()
        device.gpu_index, device._use_power_fallback, device._gpu_name = 0, False, "NVIDIA GeForce RTX 3090"
        device.sample_power, device.delta = lambda: None, lambda _: None
        device.energy_delta = CodecarbonEnergy.from_energy(300 * SECONDS / 3.6e6)
        self.devices = SimpleNamespace(devices=[device])

    def _get_gpu_ids(self) -> list[int]:
        return [0]

    def start(self) -> None:
        pass


def rapl_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> CPU:
    """A counter that has gone on by 65 W times the seconds of one reading."""
    domain = folder / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0\n")
    (domain / "max_energy_range_uj").write_text("262143328850000\n")
    (domain / "energy_uj").write_text("1000\n")
    cpu = CPU(str(folder), "intel_rapl", "AMD EPYC 7302", 155.0, rapl_dir=str(folder))
    energy = CodecarbonEnergy.from_energy(65 * SECONDS / 3.6e6)
    monkeypatch.setattr(cpu, "measure_power_and_energy", lambda last_duration: (None, energy))
    return cpu


def loaded_cpu(folder: Path, name: str, tdp_w: float, monkeypatch: pytest.MonkeyPatch) -> CPU:
    """One without a counter, half of its power taken: of the power it is told to have, as codecarbon's."""
    cpu = CPU(str(folder), "cpu_load", name, tdp_w)

    def measured(last_duration: float) -> tuple[None, CodecarbonEnergy]:
        return None, CodecarbonEnergy.from_energy(0.5 * cpu._tdp * SECONDS / 3.6e6)

    monkeypatch.setattr(cpu, "measure_power_and_energy", measured)
    return cpu


def memory(gigabytes: float, watts: float, monkeypatch: pytest.MonkeyPatch) -> RAM:
    ram = RAM()
    assert ram._calculate_ram_power(gigabytes) == pytest.approx(watts)  # codecarbon's own model
    energy = CodecarbonEnergy.from_energy(watts * SECONDS / 3.6e6)
    monkeypatch.setattr(RAM, "machine_memory_GB", gigabytes)
    monkeypatch.setattr(ram, "measure_power_and_energy", lambda last_duration: (None, energy))
    return ram


def account(
    run: Path, parts: list[Any], monkeypatch: pytest.MonkeyPatch, cpu_tdp_w: float | None = None
) -> tuple[str, dict[str, str]]:
    """The headline of an hour on these parts, and each part's kWh with its source."""
    conf = {"cpu_model": "x"}
    tracker = SimpleNamespace(_hardware=parts, _conf=conf, _ensure_hardware_ready=lambda: None)
    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", lambda **_: tracker)
    hardware = Hardware(cpu_tdp_w)
    readings, failures = hardware.read(SECONDS)
    assert failures == {}
    head = {"time": MORNING, "monotonic_s": 0.0, "attempt": "1", "node": "box"}
    start = EnergyStart(
        **head, resumed_step=None, interval_s=5.0, pid=1, codecarbon="test", host={},
        unknown=list(hardware.unknown),
    )  # fmt: skip
    sample = EnergySample(
        **head, seconds=SECONDS, phase=Phase.TRAIN, stage="pretrain", step_from=1, step=9, readings=readings
    )
    write(run, "box", [start, sample])
    summary = summarise(read_ledger(RunFolder(run)), Energy())
    lines = {
        name: f"{1000 * row['kwh']:g} Wh, {'; '.join(row['sources'])}"
        for name, row in summary["by_component"].items()
    }
    return energy_text(summary), lines


def test_a_box_with_a_gpu_and_a_cpu_of_known_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = loaded_cpu(tmp_path, "AMD Ryzen 9 5950X", 105.0, monkeypatch)
    headline, lines = account(tmp_path, [GPU(), cpu, memory(64, 20, monkeypatch)], monkeypatch)
    assert headline == "300 Wh measured + 74.5 Wh estimated (305 Wh to 444 Wh)"
    assert lines == {
        "gpu0": "300 Wh, NVML energy counter (NVIDIA GeForce RTX 3090)",
        "cpu": "52.5 Wh, codecarbon's (for AMD Ryzen 9 5950X) thermal design power of 105 W, scaled by load",
        "ram": f"22 Wh, {TWO_MODELS.format(64)}",
    }


def test_a_server_whose_cpu_has_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [rapl_cpu(tmp_path / "sys", monkeypatch), memory(128, 38, monkeypatch)]
    headline, lines = account(tmp_path, parts, monkeypatch)
    assert headline == "65 Wh measured + 43 Wh estimated (99.8 Wh to 116 Wh)"
    assert lines == {"cpu": "65 Wh, RAPL counter", "ram": f"43 Wh, {TWO_MODELS.format(128)}"}


def test_a_virtual_machine_whose_cpu_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """codecarbon takes 4 W per thread, so 8 W for a server's CPU."""
    cpu = loaded_cpu(tmp_path, "AMD EPYC", 8.0, monkeypatch)
    headline, lines = account(tmp_path, [cpu, memory(24, 20, monkeypatch)], monkeypatch)
    assert headline == "14.5 Wh estimated (9 Wh to 20 Wh), CPU unknown"
    assert lines == {"ram": f"14.5 Wh, {TWO_MODELS.format(24)}"}
    cpu = loaded_cpu(tmp_path, "AMD EPYC", 8.0, monkeypatch)
    stated, lines = account(tmp_path, [cpu, memory(24, 20, monkeypatch)], monkeypatch, cpu_tdp_w=155.0)
    assert stated == "92 Wh estimated (9 Wh to 175 Wh)"
    assert lines == {
        "cpu": "77.5 Wh, the recipe's thermal design power of 155 W, scaled by load",
        "ram": f"14.5 Wh, {TWO_MODELS.format(24)}",
    }


def test_a_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = loaded_cpu(tmp_path, LAPTOP_CPU, LAPTOP_TDP_W, monkeypatch)
    headline, lines = account(tmp_path, [cpu, memory(16, 10, monkeypatch)], monkeypatch)
    assert headline == "15.5 Wh estimated (6 Wh to 25 Wh)"
    assert lines == {
        "cpu": "7.5 Wh, codecarbon's (for AMD Ryzen 7 5800U) thermal design power of 15 W, scaled by load",
        "ram": f"8 Wh, {TWO_MODELS.format(16)}",
    }


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("AMD EPYC", False),
        ("AMD EPYC 7302 16-Core Processor", True),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", False),
        ("13th Gen Intel(R) Core(TM) Processor", False),
        ("13th Gen Intel(R) Core(TM) i7-1360P", True),
        ("", False),
    ],
)
def test_a_family_is_no_model(name: str, known: bool) -> None:
    assert names_a_model(name) == known


def test_memory_lies_between_its_models_whichever_is_higher() -> None:
    for gigabytes, module_w in ((16, 10.0), (512, 50.0)):
        found = memory_reading(10.0, gigabytes, 10 * module_w)
        assert (found.low_joules, found.high_joules) == tuple(sorted((10 * module_w, 3.75 * gigabytes)))
        assert found.low_joules is not None and found.low_joules < found.joules


@pytest.mark.parametrize(
    ("kwh", "amount"), [(0.0007, "7.5 millilitres"), (0.05, "0.54 litres"), (49.0, "527 litres")]
)
def test_an_amount_of_energy_in_water_that_it_boils(kwh: float, amount: str) -> None:
    """4.186 kJ per kilogram and kelvin, from 20 to 100 degrees."""
    assert everyday_text(kwh) == f"brings {amount} of water from 20 °C to the boil"

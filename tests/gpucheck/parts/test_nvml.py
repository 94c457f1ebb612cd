"""NVML is imitated: the fake module states each GPU's watts, and its energy counter is watts times time."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from persianmind.gpucheck.findings import Findings, NotApplicableError
from persianmind.gpucheck.nvml import open_nvml
from persianmind.gpucheck.parts.machine import measure_machine
from persianmind.gpucheck.parts.nvml import measure_nvml
from persianmind.gpucheck.setting import PartSetting
from tests.energy.ledgers import FAKE_NVML


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "control.json"
    path.write_text(json.dumps({"watts": [300.0, 150.0]}))
    monkeypatch.setenv("FAKE_NVML_CONTROL", str(path))
    return path


@pytest.fixture
def fake(control: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """In place of nvidia-ml-py."""
    spec = importlib.util.spec_from_file_location("pynvml", FAKE_NVML / "pynvml.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    yield module


@pytest.mark.usefixtures("fake")
def test_counter_and_integrated_power_agree_imitated(small: PartSetting, findings: Findings) -> None:
    measure_nvml(small, findings)
    first, second = findings.values["rows"]
    assert first["mean_w"] == pytest.approx(300) and second["mean_w"] == pytest.approx(150)
    assert first["samples"] > 5 and first["counter_j"] == pytest.approx(first["integral_j"], rel=0.15)
    assert [check["ok"] for check in findings.checks] == [True, True]
    assert first["clock_mhz"] == 1695 and first["temperature_c"] == 60 and first["held_down_by"] == []


def test_a_counter_that_counts_double_fails_imitated(
    small: PartSetting, findings: Findings, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = fake.nvmlDeviceGetTotalEnergyConsumption
    monkeypatch.setattr(
        fake, "nvmlDeviceGetTotalEnergyConsumption", lambda gpu: ordinary(gpu) * (2 if gpu else 1)
    )
    measure_nvml(small, findings)
    assert [check["ok"] for check in findings.checks] == [True, False]
    assert findings.checks[1]["ratio"] == pytest.approx(2, rel=0.15)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("state", "reason"),
    [({"watts": [300.0], "no_counter": True}, "energy counter"), ({"no_driver": True}, "no NVML here")],
)
def test_without_a_counter_or_a_driver_it_is_skipped_imitated(
    small: PartSetting, findings: Findings, control: Path, state: dict[str, Any], reason: str
) -> None:
    control.write_text(json.dumps(state))
    with pytest.raises(NotApplicableError, match=reason):
        measure_nvml(small, findings)


def test_the_machine_tells_what_nvml_tells_imitated(
    small: PartSetting, findings: Findings, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a driver or an older nvidia-ml-py does not offer is None, and no failure."""
    monkeypatch.setattr(fake, "nvmlSystemGetDriverVersion", lambda: b"580.65.06", raising=False)
    monkeypatch.setattr(fake, "nvmlDeviceGetCurrPcieLinkWidth", lambda gpu: 8, raising=False)
    monkeypatch.delattr(fake, "nvmlDeviceGetMaxPcieLinkWidth", raising=False)

    def not_permitted(gpu: int) -> int:
        raise fake.NVMLError_NoPermission("Insufficient Permissions")

    monkeypatch.setattr(fake, "nvmlDeviceGetEnforcedPowerLimit", not_permitted)
    measure_machine(small, findings)
    assert findings.values["driver"] == "580.65.06"
    first = findings.values["nvml"][0]
    assert first["name"] == "NVIDIA GeForce RTX 3090" and first["pcie_width"] == 8
    assert first["pcie_width_at_most"] is None and first["power_limit_w"] is None
    assert first["has_energy_counter"]


@pytest.mark.usefixtures("fake")
def test_a_gpu_is_found_by_its_uuid_whatever_is_visible_imitated() -> None:
    with open_nvml() as nvml:
        assert nvml.index_of("00001") == nvml.index_of("GPU-00001") == 1
        assert nvml.index_of("elsewhere") is None

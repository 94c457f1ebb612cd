"""What is told of imitated GPUs: limits, throttling, Xid errors, and what cannot be read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persianmind.energy.meter import watch as module
from persianmind.energy.meter.meanings import reasons_of, xid_meaning
from persianmind.energy.meter.nvml import _address
from persianmind.energy.meter.watch import GpuWatch, Happening
from tests.energy.ledgers import use_fake_nvml

POWER, HEAT = 0x4, 0x20
Set = Callable[..., None]


@pytest.fixture
def imitate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Set:
    """Two imitated GPUs; called again, their state changes."""

    def control(**state: Any) -> None:
        use_fake_nvml(monkeypatch, tmp_path / "control.json", [300.0, 300.0], **state)

    control()
    return control


def texts(happenings: list[Happening]) -> list[str]:
    return [one.text for one in happenings]


def test_imitated_limits_are_said_once_and_alike_gpus_together(imitate: Set) -> None:
    imitate(enforced=[280, 280])
    watch = GpuWatch([0, 1])
    expected = "gpu0, gpu1: power limit 280 W (default 350 W), clocks up to 2,100 MHz"
    assert texts(watch.begin()) == [expected]
    assert texts(watch.sample(0.0)) == []
    facts = watch.facts[1]
    assert (facts.gpu, facts.power_limit_w, facts.default_limit_w, facts.max_clock_mhz) == (
        "gpu1", 280.0, 350.0, 2100,
    )  # fmt: skip


def test_imitated_throttling_is_told_at_its_begin_and_its_end(imitate: Set) -> None:
    watch = GpuWatch([0, 1])
    watch.begin()
    imitate(reasons=[POWER, POWER])
    told = [text for second in range(100) for text in texts(watch.sample(float(second)))]
    assert told == ["gpu0, gpu1: clocks are held down: power limit of 350 W"]
    imitate(reasons=[0, POWER])
    told = [text for second in range(100, 200) for text in texts(watch.sample(float(second)))]
    assert told == ["clocks are no longer held down (power limit): gpu0 after 99 s"]


def test_imitated_heat_is_serious_and_says_what_to_do(imitate: Set) -> None:
    imitate(reasons=[0, HEAT], temperatures=[60, 83])
    watch = GpuWatch([0, 1])
    watch.begin()
    (told,) = [one for second in range(10) for one in watch.sample(float(second))]
    assert told.serious
    assert told.text == (
        "gpu1: clocks are held down: temperature (83 C); improve the air flow, or lower the power limit "
        "(nvidia-smi -pl)"
    )


def test_imitated_flicker_is_not_told_but_counted(imitate: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flickers(imitate) == []
    # Control: without the waiting times each crossing is a line.
    monkeypatch.setattr(module, "BEGIN_S", 0.0)
    monkeypatch.setattr(module, "END_S", 0.0)
    assert len(flickers(imitate)) == 40


def flickers(imitate: Set) -> list[str]:
    imitate()
    watch = GpuWatch([0])
    watch.begin()
    told = []
    for second in range(40):
        imitate(reasons=[POWER if second % 2 == 0 else 0, 0], clocks=[1000 if second % 2 == 0 else 1600, 0])
        told += texts(watch.sample(float(second)))
    (interval,) = watch.take()
    assert (interval.samples, interval.throttled, interval.clock_mhz) == (40, {"power limit": 20}, 1300)
    assert watch.take() == []
    return told


def test_imitated_xids_are_told_with_the_gpu_and_what_they_mean(imitate: Set) -> None:
    watch = GpuWatch([0, 1])
    watch.begin()
    imitate(xids=[[1, 79], [0, 31]])
    first, second = watch.sample(0.0)
    assert first.text.startswith("gpu1: Xid 79: the GPU has fallen off the bus: power supply")
    assert (first.gpu, first.xid, first.serious) == ("gpu1", 79, True)
    assert (second.gpu, second.xid) == ("gpu0", 31)
    assert watch.sample(1.0) == []
    assert "NVIDIA's list" in xid_meaning(9999)


def test_imitated_xid_storm_is_taken_piece_by_piece(imitate: Set) -> None:
    watch = GpuWatch([0])
    watch.begin()
    imitate(xids=[[0, 31]] * 20)
    assert [len(watch.sample(float(second))) for second in range(3)] == [16, 4, 0]


@pytest.mark.parametrize("error", ["NVMLError_NoPermission", "NVMLError_NotSupported"])
def test_imitated_refusals_are_one_line_once_and_the_rest_is_read(imitate: Set, error: str) -> None:
    denied = ("nvmlDeviceGetClockInfo", "nvmlDeviceRegisterEvents")
    imitate(deny=dict.fromkeys(denied, error), reasons=[POWER, 0])
    watch = GpuWatch([0, 1])
    lines = [one for one in watch.begin() if one.serious]
    why = {"NVMLError_NoPermission": "Insufficient Permissions", "NVMLError_NotSupported": "Not Supported"}
    assert texts(lines) == [
        f"clocks of gpu0, gpu1 cannot be read ({why[error]}); Xid errors of gpu0, gpu1 cannot be read "
        f"({why[error]}); the run goes on without"
    ]
    imitate(deny=dict.fromkeys(denied, error), reasons=[POWER, 0], xids=[[0, 79]])
    assert watch.sample(0.0) == watch.sample(1.0) == []
    assert watch.take()[0].throttled == {"power limit": 2}
    assert watch.take() == []


def test_imitated_older_driver_has_the_reasons_under_their_older_name(imitate: Set) -> None:
    deny = {"nvmlDeviceGetCurrentClocksEventReasons": "NVMLError_FunctionNotFound"}
    imitate(deny=deny, reasons=[POWER, 0])
    watch = GpuWatch([0])
    assert not any(one.serious for one in watch.begin())
    watch.sample(0.0)
    assert watch.take()[0].throttled == {"power limit": 1}


def test_imitated_loss_of_a_gpu_is_told_once(imitate: Set) -> None:
    watch = GpuWatch([0])
    watch.begin()
    every = ("EnforcedPowerLimit", "ClockInfo", "CurrentClocksEventReasons", "Temperature")
    imitate(deny={f"nvmlDeviceGet{name}": "NVMLError_GpuIsLost" for name in every})
    (told,) = watch.sample(0.0)
    assert told.serious and told.text.endswith("can no longer be read (GPU is lost)")
    assert watch.sample(1.0) == []


def test_imitated_machine_without_a_driver_is_one_line(imitate: Set) -> None:
    imitate(no_driver=True)
    watch = GpuWatch([0])
    (told,) = watch.begin()
    assert "NVML Shared Library Not Found" in told.text
    assert watch.sample(0.0) == watch.take() == watch.facts == []


def test_without_gpus_nothing_is_said_and_nvml_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)  # importing it would fail
    watch = GpuWatch([])
    assert watch.begin() == watch.sample(0.0) == watch.take() == watch.facts == []


def test_imitated_limit_that_is_changed_meanwhile_is_told(imitate: Set) -> None:
    watch = GpuWatch([0])
    watch.begin()
    imitate(enforced=[250, 350])
    assert texts(watch.sample(0.0)) == ["gpu0: the power limit is now 250 W, was 350 W"]
    assert watch.sample(1.0) == []


def test_xids_are_matched_by_the_address_of_real_handles() -> None:
    import pynvml

    device = pynvml.struct_c_nvmlDevice_t()
    handles = [ctypes.pointer(device), ctypes.pointer(device), ctypes.pointer(pynvml.struct_c_nvmlDevice_t())]
    assert handles[0] != handles[1]  # pointers to one device are not equal to Python
    addresses = [_address(handle) for handle in handles]
    assert addresses[0] == addresses[1] != addresses[2]


def test_slowdown_is_named_by_its_cause_where_the_driver_gives_it() -> None:
    assert reasons_of(0x008 | 0x040) == {"temperature, by hardware"}
    assert reasons_of(0x008) == {"hardware slowdown"}
    assert reasons_of(0x001) == frozenset()  # idle


def test_imitated_look_costs_four_queries_per_gpu_and_one_for_xids(
    imitate: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pynvml

    watch = GpuWatch([0, 1])
    calls: list[str] = []
    for name in [name for name in vars(pynvml) if name.startswith("nvml") and callable(vars(pynvml)[name])]:
        plain = getattr(pynvml, name)
        monkeypatch.setattr(
            pynvml, name, lambda *args, _name=name, _plain=plain: (calls.append(_name), _plain(*args))[1]
        )
    watch.sample(0.0)
    assert len(calls) <= 2 * 4 + 1 and "nvmlEventSetWait_v2" in calls

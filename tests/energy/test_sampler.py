"""The meter's process, driven in this process with hardware whose joules are known."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.atomic import append_line
from persianmind.common.checksum import dump_checked_line
from persianmind.common.lock import LockHeldError, OwnedLock
from persianmind.energy.ledger import Ledger, read_ledger
from persianmind.energy.meter import lines
from persianmind.energy.meter import sampler as module
from persianmind.energy.meter.hardware import ESTIMATED, MEASURED
from persianmind.energy.meter.pipes import Mark, Marks, dump_stop
from persianmind.energy.meter.sampler import MeterSetting, Sampler, Watching
from persianmind.energy.meter.watch import GpuWatch, Happening
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.run.energy_records import EnergyReading, GpuFacts, GpuInterval
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase
from tests.energy.ledgers import read_lines, stop


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Hundred:
    """100 W of GPU, measured, and 10 W of CPU, estimated."""

    version = "test"

    def __init__(self) -> None:
        self.host: dict[str, Any] = {"cpu_model": "test"}
        self.failures: dict[str, str] = {}

    def start(self) -> None:
        pass

    def read(self, seconds: float) -> tuple[list[EnergyReading], dict[str, str]]:
        cpu = EnergyReading(component="cpu", joules=10 * seconds, kind=ESTIMATED, source="model")
        gpu = EnergyReading(component="gpu0", joules=100 * seconds, kind=MEASURED, source="counter")
        readings = [cpu] if "gpu0" in self.failures else [cpu, gpu]
        return readings, self.failures


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def make(
    run: Path, clock: Clock, watch: Watching | None = None
) -> tuple[Sampler, Hundred, list[dict[str, Any]]]:
    folder = RunFolder(run)
    setting = MeterSetting(
        ledger=folder.ledger("a"), lock=folder.meter_lock("a"), node="a", attempt="1", interval_s=5.0,
        country_iso="IRN", cpu_tdp_w=None, parent=os.getppid(), started_s=clock.now_s, phase=Phase.PREPARE,
        stage="", step=0, resumed_step=None,
    )  # fmt: skip
    sent: list[dict[str, Any]] = []
    folder.energy.mkdir(parents=True)
    hardware = Hundred()
    return Sampler(setting, hardware, watch or GpuWatch([]), sent.append), hardware, sent


def train(clock: Clock, step: int, *, resumed_step: int | None = None) -> Mark:
    return Mark(Phase.TRAIN, "pretrain", step, clock.now_s, resumed_step)


def ledger_of(run: Path) -> Ledger:
    return read_ledger(RunFolder(run))


def test_joules_go_to_the_stage_and_step_they_were_spent_in(tmp_path: Path, clock: Clock) -> None:
    sampler, _, sent = make(tmp_path, clock)
    sampler.begin([])
    clock.now_s += 2
    sampler.mark(train(clock, 1))
    clock.now_s += 1
    sampler.tick()
    sampler.mark(train(clock, 2))
    clock.now_s += 3
    sampler.mark(Mark(Phase.EVALUATE, "pretrain", 2, clock.now_s))
    clock.now_s += 4
    sampler.end("stopped")
    summary = summarise(ledger_of(tmp_path), Energy())
    watt_hours = {stage: kwh * 1000 for stage, kwh in summary["by_stage"].items()}
    expected = {"prepare": 2, "pretrain": 4, "evaluate:pretrain": 4}
    assert watt_hours == pytest.approx({stage: 110 * s / 3600 for stage, s in expected.items()})
    assert sent[-1] == {"joules": pytest.approx(1100)}
    samples = [line for line in read_lines(tmp_path, "a") if line["kind"] == "sample"]
    assert [(line["step_from"], line["step"]) for line in samples] == [(0, 0), (1, 2), (2, 2)]


def test_the_seconds_before_the_first_reading_are_extrapolated_by_stage_and_say_so(
    tmp_path: Path, clock: Clock
) -> None:
    sampler, _, _ = make(tmp_path, clock)
    clock.now_s += 1.0
    early = [train(clock, 1)]
    clock.now_s += 0.5
    early.append(train(clock, 2))
    clock.now_s += 1.5  # the hardware is found 3 s after the start
    sampler.begin(early)
    clock.now_s += 1.0
    sampler.end("stopped")
    summary = summarise(ledger_of(tmp_path), Energy())
    joules = {stage: kwh * 3.6e6 for stage, kwh in summary["by_stage"].items()}
    assert joules == pytest.approx({"prepare": 110, "pretrain": 330})
    assert summary["measured_ratio"] == pytest.approx(100 / 440)  # only what was read counts as measured
    assert module.STARTUP_SOURCE in summary["by_component"]["gpu0"]["sources"]


def test_a_run_that_ends_before_the_meter_is_ready_is_counted_to_its_end_and_no_longer(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        clock.now_s += seconds

    monkeypatch.setattr(module.time, "sleep", sleep)
    sampler, _, sent = make(tmp_path, clock)
    ended_s = clock.now_s + 1.5
    clock.now_s += 4.0  # the hardware is found long after
    sampler.begin([], until_s=ended_s)
    sampler.end_before_ready()
    summary = summarise(ledger_of(tmp_path), Energy())
    assert summary["kwh"] * 3.6e6 == pytest.approx(1.5 * 110)
    assert sent[-1] == {"joules": pytest.approx(165)}


def test_the_wall_clock_may_jump_back(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    days = itertools.count(28, -1)
    monkeypatch.setattr(lines, "utc_now", lambda: f"2026-03-{next(days):02d}T00:00:00+00:00")
    sampler, _, _ = make(tmp_path, clock)
    sampler.begin([])
    for _ in range(3):
        clock.now_s += 5
        sampler.tick()
        sampler.flush()
    sampler.end("stopped")
    ledger = ledger_of(tmp_path)
    assert summarise(ledger, Energy())["kwh"] == pytest.approx(15 * 110 / 3.6e6)
    assert len(ledger.notes) == 4


def test_a_part_that_fails_is_said_once_and_the_rest_goes_on(tmp_path: Path, clock: Clock) -> None:
    sampler, hardware, sent = make(tmp_path, clock)
    sampler.begin([])
    hardware.failures = {"gpu0": "NVMLError: GPU is lost"}
    for _ in range(3):
        clock.now_s += 1
        sampler.tick()
    hardware.failures = {}
    clock.now_s += 1
    sampler.end("stopped")
    ledger = ledger_of(tmp_path)
    assert len([message for message in sent if "cannot be read" in message.get("message", "")]) == 1
    assert len(ledger.problems) == 1 and "gpu0" in ledger.problems[0]
    assert any("can be read again" in note for note in ledger.notes)
    components = summarise(ledger, Energy())["by_component"]
    assert components["cpu"]["kwh"] * 3.6e6 == pytest.approx(40)
    assert components["gpu0"]["kwh"] * 3.6e6 == pytest.approx(100)


def test_a_resume_point_that_comes_late_is_kept(tmp_path: Path, clock: Clock) -> None:
    sampler, _, _ = make(tmp_path, clock)
    sampler.begin([])
    clock.now_s += 1
    sampler.mark(train(clock, 81, resumed_step=80))
    sampler.end("stopped")
    assert ledger_of(tmp_path).attempts[0].resumed_step == 80


def test_a_torn_line_is_closed_before_the_next(tmp_path: Path) -> None:
    """The control beside it: without that the next line would be lost with it."""
    for name, closed in (("guarded", True), ("unguarded", False)):
        path = RunFolder(tmp_path / name).ledger("a")
        path.parent.mkdir(parents=True)
        append_line(path, dump_checked_line(stop("1", "a").model_dump(mode="json")))
        whole = path.read_bytes()
        path.write_bytes(b'{"kind": "sam')
        for _ in range(2):
            if closed:
                append_line(path, dump_checked_line(stop("1", "a").model_dump(mode="json")))
            else:
                path.write_bytes(path.read_bytes() + whole)
        assert path.read_bytes().count(b"\n") == (3 if closed else 2)
        ledger = ledger_of(tmp_path / name)
        assert len(ledger.attempts) == 1 and ledger.damage[0].startswith("energy/a.jsonl: 1 damaged")
    path.write_bytes(b'{"kind": "sam' + whole)
    assert ledger_of(tmp_path / "unguarded").attempts == []


def test_it_ends_with_its_parent_and_not_before(tmp_path: Path) -> None:
    """The pipe stays open here, as it does when a data worker was forked and holds a copy of it."""
    sampler, _, _ = make(tmp_path, Clock())
    read_end, write_end = os.pipe()
    asked, gone = threading.Event(), threading.Event()

    def parent_gone() -> bool:
        asked.set()
        return gone.is_set()

    def work() -> None:
        sampler.begin([])
        sampler.run(Marks(read_end), parent_gone)

    thread = threading.Thread(target=work)
    thread.start()
    assert asked.wait(10) and thread.is_alive()
    gone.set()
    os.write(write_end, train(Clock(), 1).dump())  # wakes it at once
    thread.join(10)
    assert not thread.is_alive()
    assert read_lines(tmp_path, "a")[-1]["reason"] == "the training process is gone"
    os.close(write_end)
    os.close(read_end)


def test_it_ends_when_it_is_told(tmp_path: Path) -> None:
    sampler, _, _ = make(tmp_path, Clock())
    read_end, write_end = os.pipe()
    os.write(write_end, dump_stop(1.0))
    sampler.begin([])
    sampler.run(Marks(read_end), lambda: False)
    assert read_lines(tmp_path, "a")[-1]["reason"] == "stopped"
    os.close(write_end)
    os.close(read_end)


def test_only_one_meter_gets_the_lock_of_a_node(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with OwnedLock(folder.meter_lock("a")):
        with pytest.raises(LockHeldError), OwnedLock(folder.meter_lock("a")):
            pass
        with OwnedLock(folder.meter_lock("b")):
            pass
    with OwnedLock(folder.meter_lock("a")):
        pass


class Hot:
    """Imitated GPU: too hot in every sample, and one Xid error in the second."""

    def __init__(self) -> None:
        self.facts = [GpuFacts(gpu="gpu0", power_limit_w=280.0, default_limit_w=350.0, max_clock_mhz=2100)]
        self.samples = 0

    def begin(self) -> list[Happening]:
        return [Happening("limits")]

    def sample(self, now_s: float) -> list[Happening]:
        self.samples += 1
        told = [Happening("Xid 79", serious=True, gpu="gpu0", xid=79)]
        return told if self.samples == 2 else []

    def take(self) -> list[GpuInterval]:
        samples, self.samples = self.samples, 0
        return [GpuInterval(gpu="gpu0", samples=samples, throttled={"temperature": samples})]


def test_imitated_gpus_state_goes_with_the_interval_and_an_xid_becomes_a_line(
    tmp_path: Path, clock: Clock
) -> None:
    hot = Hot()
    sampler, _, sent = make(tmp_path, clock, hot)
    sampler.begin([])
    for _ in range(3):
        clock.now_s += 1.0
        sampler.tick()
    sampler.end("stopped")
    (attempt,) = ledger_of(tmp_path).attempts
    assert attempt.gpus == hot.facts
    (sample,) = attempt.samples
    assert sample.gpus == [GpuInterval(gpu="gpu0", samples=3, throttled={"temperature": 3})]
    assert [(note.gpu, note.xid) for note in attempt.xids] == [("gpu0", 79)]
    told = [(message["message"], message["serious"]) for message in sent if "message" in message]
    assert told == [("limits", False), ("Xid 79", True)]
    # What is not serious is for the log alone.
    assert [line["message"] for line in read_lines(tmp_path, "a") if line["kind"] == "note"] == ["Xid 79"]

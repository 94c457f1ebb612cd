"""The meter's process, driven in this process with hardware whose joules are known."""

from __future__ import annotations

import itertools
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import read_lines

from persianmind.energy.ledger import read_ledger, summarise
from persianmind.energy.meter import lines
from persianmind.energy.meter import sampler as module
from persianmind.energy.meter.hardware import ESTIMATED, MEASURED, Reading
from persianmind.energy.meter.lines import append_record
from persianmind.energy.meter.pipes import Marks, lock_node
from persianmind.energy.meter.sampler import Sampler, Setting
from persianmind.recipe import Energy


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
        self.facts: dict[str, Any] = {"cpu_model": "test"}
        self.failures: dict[str, str] = {}

    def start(self) -> None:
        pass

    def read(self, seconds: float) -> tuple[list[Reading], dict[str, str]]:
        readings = [Reading("cpu", 10 * seconds, ESTIMATED, "model")]
        if "gpu0" not in self.failures:
            readings.append(Reading("gpu0", 100 * seconds, MEASURED, "counter"))
        return readings, self.failures


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def make(run: Path, clock: Clock, **changes: Any) -> tuple[Sampler, Hundred, list[dict[str, Any]]]:
    setting = Setting(
        run=run, node="a", attempt="1", interval_s=5.0, country_iso="IRN", cpu_tdp_w=None,
        parent=os.getppid(), started_s=clock.now_s, stage="prepare", step=0, resumed_step=None,
    )  # fmt: skip
    setting = replace(setting, **changes)
    said: list[dict[str, Any]] = []
    (run / "energy").mkdir(parents=True)
    hardware = Hundred()
    return Sampler(setting, hardware, said.append), hardware, said


def mark(clock: Clock, stage: str, step: int, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "step": step, "s": clock.now_s, **more}


def test_joules_go_to_the_stage_and_step_they_were_spent_in(tmp_path: Path, clock: Clock) -> None:
    sampler, _, said = make(tmp_path, clock)
    sampler.begin([])
    clock.now_s += 2
    sampler.mark(mark(clock, "pretrain", 1))
    clock.now_s += 1
    sampler.tick()
    sampler.mark(mark(clock, "pretrain", 2))
    clock.now_s += 3
    sampler.mark(mark(clock, "evaluate:pretrain", 2))
    clock.now_s += 4
    sampler.end("stopped")
    summary = summarise(read_ledger(tmp_path), Energy())
    watt_hours = {stage: kwh * 1000 for stage, kwh in summary["by_stage"].items()}
    expected = {"prepare": 2, "pretrain": 4, "evaluate:pretrain": 4}
    assert watt_hours == pytest.approx({stage: 110 * s / 3600 for stage, s in expected.items()})
    assert said[-1] == {"joules": pytest.approx(1100)}
    samples = [line for line in read_lines(tmp_path, "a") if line["kind"] == "sample"]
    assert [(line["step_from"], line["step"]) for line in samples] == [(0, 0), (1, 2), (2, 2)]


def test_the_seconds_before_the_first_reading_are_extrapolated_by_stage_and_say_so(
    tmp_path: Path, clock: Clock
) -> None:
    sampler, _, _ = make(tmp_path, clock)
    clock.now_s += 1.0
    early = [mark(clock, "pretrain", 1)]
    clock.now_s += 0.5
    early.append(mark(clock, "pretrain", 2))
    clock.now_s += 1.5  # the hardware is found 3 s after the start
    sampler.begin(early)
    clock.now_s += 1.0
    sampler.end("stopped")
    summary = summarise(read_ledger(tmp_path), Energy())
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
    sampler, _, said = make(tmp_path, clock)
    ended_s = clock.now_s + 1.5
    clock.now_s += 4.0  # the hardware is found long after
    sampler.begin([], until_s=ended_s)
    sampler.end_before_ready()
    summary = summarise(read_ledger(tmp_path), Energy())
    assert summary["kwh"] * 3.6e6 == pytest.approx(1.5 * 110)
    assert said[-1] == {"joules": pytest.approx(165)}


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
    ledger = read_ledger(tmp_path)
    assert summarise(ledger, Energy())["kwh"] == pytest.approx(15 * 110 / 3.6e6)
    assert len(ledger.notes) == 4


def test_a_part_that_fails_is_said_once_and_the_rest_goes_on(tmp_path: Path, clock: Clock) -> None:
    sampler, hardware, said = make(tmp_path, clock)
    sampler.begin([])
    hardware.failures = {"gpu0": "NVMLError: GPU is lost"}
    for _ in range(3):
        clock.now_s += 1
        sampler.tick()
    hardware.failures = {}
    clock.now_s += 1
    sampler.end("stopped")
    ledger = read_ledger(tmp_path)
    assert len([message for message in said if "cannot be read" in message.get("message", "")]) == 1
    assert len(ledger.problems) == 1 and "gpu0" in ledger.problems[0]
    assert any("can be read again" in note for note in ledger.notes)
    components = summarise(ledger, Energy())["by_component"]
    assert components["cpu"]["kwh"] * 3.6e6 == pytest.approx(40)
    assert components["gpu0"]["kwh"] * 3.6e6 == pytest.approx(100)


def test_a_resume_point_that_comes_late_is_kept(tmp_path: Path, clock: Clock) -> None:
    sampler, _, _ = make(tmp_path, clock)
    sampler.begin([])
    clock.now_s += 1
    sampler.mark(mark(clock, "pretrain", 81, resumed_step=80))
    sampler.end("stopped")
    assert read_ledger(tmp_path).attempts[0].resumed_step == 80


def test_a_torn_line_is_closed_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"kind": "sam')
    append_record(path, {"kind": "stop"})
    append_record(path, {"kind": "stop"})
    assert path.read_text() == '{"kind": "sam\n{"kind": "stop"}\n{"kind": "stop"}\n'


def test_without_closing_the_torn_line_the_next_would_be_lost(tmp_path: Path) -> None:
    whole = json.dumps({"kind": "stop", "time": "2026-03-01T06:00:00+00:00", "attempt": "1", "reason": "x"})
    for name, closed in (("guarded", True), ("unguarded", False)):
        path = tmp_path / name / "energy" / "a.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(b'{"kind": "sam')
        if closed:
            append_record(path, json.loads(whole))
        else:
            path.write_text(path.read_text() + whole + "\n")
        assert len(read_ledger(tmp_path / name).attempts) == (1 if closed else 0)


def test_it_ends_with_its_parent_and_not_before(tmp_path: Path) -> None:
    """The pipe stays open here, as it does when a data worker was forked and holds a copy of it."""
    for name, parent, expected in (("gone", -1, "the training process is gone"), ("there", None, "stopped")):
        sampler, _, _ = make(tmp_path / name, Clock(), **({} if parent is None else {"parent": parent}))
        read_end, write_end = os.pipe()
        thread = threading.Thread(target=lambda s=sampler, r=read_end: (s.begin([]), s.run(Marks(r))))
        thread.start()
        thread.join(0.7)
        assert thread.is_alive() == (parent is None)
        os.write(write_end, b'{"stop": 1.0}\n')
        thread.join(5)
        assert read_lines(tmp_path / name, "a")[-1]["reason"] == expected
        os.close(write_end)
        os.close(read_end)


def test_only_one_meter_gets_the_lock_of_a_node(tmp_path: Path) -> None:
    first = lock_node(tmp_path, "a")
    assert first is not None
    assert lock_node(tmp_path, "a") is None
    other = lock_node(tmp_path, "b")
    assert other is not None
    other.close()
    first.close()
    again = lock_node(tmp_path, "a")
    assert again is not None
    again.close()


def test_marks_come_whole_whatever_the_pipe_cuts() -> None:
    read_end, write_end = os.pipe()
    marks = Marks(read_end)
    assert marks.wait(0) == []
    text = json.dumps({"stage": "pretrain", "step": 1}).encode() + b"\n"
    os.write(write_end, text + text[:7])
    assert marks.wait(1) == [{"stage": "pretrain", "step": 1}]
    os.write(write_end, text[7:])
    assert marks.wait(1) == [{"stage": "pretrain", "step": 1}]
    os.close(write_end)
    assert marks.wait(1) == [] and not marks.open and marks.stopped_s is None
    os.close(read_end)

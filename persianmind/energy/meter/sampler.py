"""What the meter's process does: reads the hardware once a tick, adds up, appends one line an interval.

Durations come from the monotonic clock alone: a wall clock that is set back during a run changes no joule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from persianmind.energy.meter.hardware import ESTIMATED, Reading
from persianmind.energy.meter.lines import append_record, ledger_path, record
from persianmind.energy.meter.pipes import Marks

STARTUP_SOURCE = "extrapolated from the first readings: the meter was starting"
MIN_TICK_S = 0.05
FIRST_READINGS_S = 0.4  # shorter ones are too noisy to extrapolate from


class Readable(Protocol):
    """What the sampler needs of the hardware; hardware.Hardware is the real one."""

    version: str
    facts: dict[str, Any]

    def start(self) -> None: ...
    def read(self, seconds: float) -> tuple[list[Reading], dict[str, str]]: ...


@dataclass(frozen=True)
class Setting:
    """What the parent decided, passed as one JSON argument."""

    run: Path
    node: str
    attempt: str
    interval_s: float
    country_iso: str
    cpu_tdp_w: float | None
    parent: int
    started_s: float
    stage: str
    step: int
    resumed_step: int | None


@dataclass
class Interval:
    """What is being added up for the next line; `step_from` and `step` are the first and last step in it."""

    stage: str
    step_from: int
    step: int
    seconds: float = 0.0
    readings: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def add(self, readings: list[Reading], seconds: float) -> None:
        self.seconds += seconds
        for item in readings:
            key = (item.component, item.kind, item.source)
            self.readings[key] = self.readings.get(key, 0.0) + item.joules


class Sampler:
    """Reads `hardware` and writes lines until told to stop."""

    def __init__(self, setting: Setting, hardware: Readable, say: Callable[[dict[str, Any]], None]) -> None:
        self.setting = setting
        self.hardware = hardware
        self.say = say
        self.path = ledger_path(setting.run, setting.node)
        self.total_j = 0.0
        self.interval = Interval(setting.stage, setting.step, setting.step)
        self.last_s = time.monotonic()
        self.failing: set[str] = set()
        # What the start-up of this process left uncounted, a stage each, by the marks' own times.
        self.uncounted: list[Interval] = []
        self.first = Interval(setting.stage, setting.step, setting.step)

    def begin(self, marks: list[dict[str, Any]], until_s: float = float("inf")) -> None:
        """Writes the start line; `marks` came in while the hardware was being found.

        `until_s`: when the run ended, if it did so meanwhile; what comes after is not the run's.
        """
        self.hardware.start()
        now_s = time.monotonic()
        self._write(
            "start",
            resumed_step=self.setting.resumed_step,
            interval_s=self.setting.interval_s,
            pid=self.setting.parent,
            codecarbon=self.hardware.version,
            host=self.hardware.facts,
        )
        since_s = self.setting.started_s
        for mark in marks:
            self._leave_uncounted(float(mark["s"]) - since_s)
            since_s = max(since_s, float(mark["s"]))
            self._take(mark)
        self._leave_uncounted(min(now_s, until_s) - since_s)
        self.interval = Interval(self.interval.stage, self.interval.step, self.interval.step)
        self.last_s = now_s

    def _leave_uncounted(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self.uncounted and self.uncounted[-1].stage == self.interval.stage:
            self.uncounted[-1].seconds += seconds
            self.uncounted[-1].step = self.interval.step
        else:
            self.uncounted.append(
                Interval(self.interval.stage, self.interval.step, self.interval.step, seconds)
            )

    def tick(self) -> None:
        """Reads everything once."""
        now_s = time.monotonic()
        seconds = now_s - self.last_s
        if seconds <= 0:
            return
        self.last_s = now_s
        readings, failures = self.hardware.read(seconds)
        self._note_failures(failures)
        self.interval.add(readings, seconds)
        self.total_j += sum(item.joules for item in readings)
        if self.uncounted:
            self.first.add(readings, seconds)
            if self.first.seconds >= FIRST_READINGS_S:
                self._count_startup()
        self.say({"joules": self.total_j})

    def _count_startup(self) -> None:
        """The seconds before the first readings get the mean power of the first readings, and say so."""
        for startup in self.uncounted if self.first.seconds else []:
            share = startup.seconds / self.first.seconds
            for (component, _, _), joules in self.first.readings.items():
                key = (component, ESTIMATED, STARTUP_SOURCE)
                startup.readings[key] = startup.readings.get(key, 0.0) + joules * share
            self.total_j += sum(startup.readings.values())
            self._write_interval(startup)
        self.uncounted = []

    def mark(self, mark: dict[str, Any]) -> None:
        """What follows belongs to this stage and step; a new stage closes the interval of the old one."""
        if mark["stage"] != self.interval.stage:
            self.tick()
            self.flush()
        self._take(mark)

    def _take(self, mark: dict[str, Any]) -> None:
        stage, step = str(mark["stage"]), int(mark["step"])
        if stage != self.interval.stage:
            self.interval.step_from = step
        self.interval.stage, self.interval.step = stage, step
        if mark.get("resumed_step") is not None:
            self._write("resumed", resumed_step=int(mark["resumed_step"]))

    def flush(self) -> None:
        """Writes the interval, if it holds anything, and begins the next."""
        if self.interval.seconds > 0:
            self._write_interval(self.interval)
        self.interval = Interval(self.interval.stage, self.interval.step, self.interval.step)

    def _write_interval(self, interval: Interval) -> None:
        joules = [
            {"component": name, "joules": round(value, 3), "kind": kind, "source": source}
            for (name, kind, source), value in interval.readings.items()
        ]
        self._write(
            "sample",
            seconds=round(interval.seconds, 6),
            stage=interval.stage,
            step_from=interval.step_from,
            step=interval.step,
            joules=joules,
        )

    def _note_failures(self, failures: dict[str, str]) -> None:
        for name, reason in failures.items():
            if name not in self.failing:
                self.problem(f"{name} cannot be read ({reason}); its energy is not counted from here on")
        for name in self.failing - failures.keys():
            self.problem(f"{name} can be read again", missing=False)
        self.failing = set(failures)

    def problem(self, message: str, *, missing: bool = True) -> None:
        """One line in the ledger and one message for the parent to show."""
        self._write("note", missing=missing, message=message)
        self.say({"message": message})

    def end(self, reason: str) -> None:
        """The last reading, the last line."""
        self.tick()
        self._count_startup()
        self.flush()
        self._write("stop", reason=reason, total_j=round(self.total_j, 3))

    def end_before_ready(self) -> None:
        """The run ended while the hardware was being found: its seconds get the power of right after it."""
        time.sleep(FIRST_READINGS_S)
        seconds = time.monotonic() - self.last_s
        readings, failures = self.hardware.read(seconds)
        self._note_failures(failures)
        self.first.add(readings, seconds)
        self._count_startup()
        self.say({"joules": self.total_j})
        self._write("stop", reason="stopped", total_j=round(self.total_j, 3))

    def _write(self, kind: str, **fields: Any) -> None:
        append_record(self.path, record(kind, self.setting.attempt, self.setting.node, **fields))

    def run(self, marks: Marks) -> None:
        """Ticks until the marks end or the parent is gone."""
        tick_s = max(min(1.0, self.setting.interval_s), MIN_TICK_S)
        next_s = time.monotonic() + tick_s
        written_s = time.monotonic()
        while marks.open and os.getppid() == self.setting.parent:
            for mark in marks.wait(max(0.0, next_s - time.monotonic())):
                self.mark(mark)
            if time.monotonic() >= next_s:
                self.tick()
                next_s = max(next_s + tick_s, time.monotonic())
                if time.monotonic() - written_s >= self.setting.interval_s - tick_s / 2:
                    self.flush()
                    written_s = time.monotonic()
        self.end("the training process is gone" if marks.stopped_s is None else "stopped")

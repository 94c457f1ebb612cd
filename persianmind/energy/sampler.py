"""The meter's own process: `python -m persianmind.energy.sampler`, started by meter.py, one a node.

It reads the hardware once a tick, adds up, and appends one line an interval to energy/<node>.jsonl. It takes
marks (stage, step) as JSON lines on standard input and tells the running total on standard output. It ends
when standard input closes or when its parent is gone, so that no orphan outlives a training run, however the
run ended. It imports neither torch nor anything of the training.

Durations come from the monotonic clock alone: a wall clock that is set back during a run changes no joule.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from persianmind.energy.hardware import ESTIMATED, Reading
from persianmind.energy.lines import append_record, ledger_path, record
from persianmind.energy.pipes import Marks, lock_node, say_on

STARTUP_SOURCE = "extrapolated from the first readings: the meter was starting"
LOCK_WAIT_S = 5.0
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


def main(argument: str) -> int:
    """Runs the meter; the exit status is 0 also when it could not count, which it has said."""
    # Ctrl-C and the launcher's SIGTERM go to the whole group; the meter must outlive the last checkpoint and
    # ends with its parent in any case.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fields = json.loads(argument)
    setting = Setting(**{**fields, "run": Path(fields["run"])})
    say = say_on(sys.stdout.fileno())
    marks = Marks(sys.stdin.fileno())
    try:
        return _count(setting, marks, say)
    except Exception as error:
        message = f"the energy meter stopped: {type(error).__name__}: {' '.join(str(error).split())}"
        say({"message": message})
        _note_death(setting, message)
        return 1


def _count(setting: Setting, marks: Marks, say: Callable[[dict[str, Any]], None]) -> int:
    """Gets the node's lock, finds the hardware, and samples until the end."""
    early: list[dict[str, Any]] = []
    lock = lock_node(setting.run, setting.node)
    deadline_s = time.monotonic() + LOCK_WAIT_S
    # The meter of a run that was killed a moment ago may still be writing its last line. What passes until
    # it lets go is in its account, so ours begins after it.
    while lock is None:
        if not marks.open or os.getppid() != setting.parent:
            return 0
        if time.monotonic() > deadline_s:
            say({"message": f"another meter already counts node {setting.node}; this one counts nothing"})
            return 0
        early.extend(marks.wait(0.1))
        time.sleep(0.02)  # a pipe full of marks must not turn this into a spin
        lock = lock_node(setting.run, setting.node)
        setting = replace(setting, started_s=time.monotonic())
    with lock:
        from persianmind.energy.hardware import Hardware

        sampler = Sampler(setting, Hardware(setting.country_iso, setting.cpu_tdp_w), say)
        while more := marks.wait(0.0):
            early.extend(more)
        if marks.stopped_s is None:
            sampler.begin(early)
            sampler.run(marks)
        else:
            sampler.begin(early, until_s=marks.stopped_s)
            sampler.end_before_ready()
    return 0


def _note_death(setting: Setting, message: str) -> None:
    # If the disk is what failed, the parent shows the message; more cannot be done.
    with contextlib.suppress(OSError):
        append_record(
            ledger_path(setting.run, setting.node),
            record("note", setting.attempt, setting.node, missing=True, message=message),
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

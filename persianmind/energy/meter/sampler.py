"""What the meter's process does: reads the hardware once per tick, adds up, appends one line per interval.

Durations come from the monotonic clock alone: a wall clock that is set back during a run changes no joule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

from persianmind.energy.meter.hardware import ESTIMATED, Kind
from persianmind.energy.meter.interval import Interval, Joules
from persianmind.energy.meter.lines import LedgerWriter
from persianmind.energy.meter.pipes import Mark, Marks, Send
from persianmind.energy.meter.watch import Happening
from persianmind.run.energy_records import (
    EnergyLine,
    EnergyNote,
    EnergyReading,
    EnergyResumed,
    EnergySample,
    EnergyStart,
    EnergyStop,
    GpuFacts,
    GpuInterval,
)
from persianmind.run.records import Phase

STARTUP_SOURCE = "extrapolated from the first readings: the meter was starting"
MIN_TICK_S = 0.05
SHORTEST_S = 1e-6  # lines give seconds to this precision
FIRST_READINGS_S = 0.4  # shorter ones are too noisy to extrapolate from


class Readable(Protocol):
    """What the sampler needs of the hardware; hardware.Hardware is the real one."""

    version: str
    host: dict[str, Any]
    unknown: dict[str, str]

    def start(self) -> None: ...
    def read(self, seconds: float) -> tuple[list[EnergyReading], dict[str, str]]: ...


class Watching(Protocol):
    """What the sampler needs to know of the GPUs beside their joules; watch.GpuWatch is the real one."""

    @property
    def facts(self) -> list[GpuFacts]: ...
    def begin(self) -> list[Happening]: ...
    def sample(self, now_s: float) -> list[Happening]: ...
    def take(self) -> list[GpuInterval]: ...


@dataclass(frozen=True)
class MeterSetting:
    """What the parent decided. parent: its pid. started_s: monotonic, when the count begins."""

    ledger: Path
    lock: Path
    node: str
    attempt: str
    interval_s: float
    cpu_tdp_w: float | None
    parent: int
    started_s: float
    phase: Phase
    stage: str
    step: int
    resumed_step: int | None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """From plain JSON."""
        known = {each.name: given[each.name] for each in fields(cls)}
        paths = {name: Path(given[name]) for name in ("ledger", "lock")}
        return cls(**{**known, **paths, "phase": Phase(given["phase"])})

    def writer(self) -> LedgerWriter:
        """What writes this meter's lines."""
        return LedgerWriter(self.ledger, node=self.node, attempt=self.attempt)


class Sampler:
    """Reads `hardware` and writes lines until asked to stop."""

    def __init__(self, setting: MeterSetting, hardware: Readable, watch: Watching, send: Send) -> None:
        self.setting = setting
        self.hardware = hardware
        self.watch = watch
        self.send = send
        self.total_j = 0.0
        self.interval = Interval(setting.phase, setting.stage, setting.step, setting.step)
        self.last_s = time.monotonic()
        self.failing: set[str] = set()
        # What the start-up of this process left uncounted, a piece per stage, by the marks' own times.
        self.uncounted: list[Interval] = []
        self.first = self.interval.next()
        self._ledger = setting.writer()

    def begin(self, marks: list[Mark], until_s: float = float("inf")) -> None:
        """Writes the start line; `marks` came in while the hardware was being found.

        `until_s`: when the run ended, if it did so meanwhile; what comes after is not the run's.
        """
        self.hardware.start()
        now_s = time.monotonic()
        self._write(
            EnergyStart,
            resumed_step=self.setting.resumed_step,
            interval_s=self.setting.interval_s,
            pid=self.setting.parent,
            codecarbon=self.hardware.version,
            host=self.hardware.host,
            gpus=self.watch.facts,
            unknown=list(self.hardware.unknown),
        )
        for part, why in self.hardware.unknown.items():
            self.problem(f"{part}: {why}")
        self._tell(self.watch.begin())
        since_s = self.setting.started_s
        for mark in marks:
            self._leave_uncounted(mark.at_s - since_s)
            since_s = max(since_s, mark.at_s)
            self._take(mark)
        self._leave_uncounted(min(now_s, until_s) - since_s)
        self.interval = self.interval.next()
        self.last_s = now_s

    def _leave_uncounted(self, seconds: float) -> None:
        if seconds < SHORTEST_S:
            return
        if not self.uncounted or not self.uncounted[-1].covers(self.interval):
            self.uncounted.append(self.interval.next())
        self.uncounted[-1].seconds += seconds
        self.uncounted[-1].step = self.interval.step

    def tick(self) -> None:
        """Reads everything once."""
        now_s = time.monotonic()
        seconds = now_s - self.last_s
        if seconds <= 0:
            return
        self.last_s = now_s
        readings, failures = self.hardware.read(seconds)
        self._note_failures(failures)
        self._tell(self.watch.sample(now_s))
        self.interval.add(readings, seconds)
        self.total_j += sum(item.joules for item in readings)
        if self.uncounted:
            self.first.add(readings, seconds)
            if self.first.seconds >= FIRST_READINGS_S:
                self._count_startup()
        self.send({"joules": self.total_j})

    def _count_startup(self) -> None:
        """The seconds before the first readings get the mean power of the first readings, and say so."""
        for startup in self.uncounted if self.first.seconds else []:
            ratio = startup.seconds / self.first.seconds
            for (component, _, _), first in self.first.joules.items():
                key: tuple[str, Kind, str] = (component, ESTIMATED, STARTUP_SOURCE)
                startup.joules.setdefault(key, Joules()).add(first.value, first.low, first.high, ratio)
            self.total_j += sum(one.value for one in startup.joules.values())
            self._write_interval(startup, [])
        self.uncounted = []

    def mark(self, mark: Mark) -> None:
        """What follows belongs to this phase, stage and step; another stage closes the interval before."""
        if not self.interval.covers(mark):
            self.tick()
            self.flush()
        self._take(mark)

    def _take(self, mark: Mark) -> None:
        if not self.interval.covers(mark):
            self.interval.step_from = mark.step
        self.interval.phase, self.interval.stage, self.interval.step = mark.phase, mark.stage, mark.step
        if mark.resumed_step is not None:
            self._write(EnergyResumed, resumed_step=mark.resumed_step)

    def flush(self) -> None:
        """Writes the interval, if it holds anything, and begins the next."""
        if self.interval.seconds >= SHORTEST_S:
            self._write_interval(self.interval, self.watch.take())
        self.interval = self.interval.next()

    def _write_interval(self, interval: Interval, gpus: list[GpuInterval]) -> None:
        self._write(
            EnergySample,
            seconds=round(interval.seconds, 6),
            phase=interval.phase,
            stage=interval.stage,
            step_from=interval.step_from,
            step=interval.step,
            readings=[
                EnergyReading(
                    component=component,
                    joules=round(found.value, 3),
                    kind=kind,
                    source=source,
                    low_joules=None if found.low is None else round(found.low, 3),
                    high_joules=None if found.high is None else round(found.high, 3),
                )
                for (component, kind, source), found in interval.joules.items()
            ],
            gpus=gpus,
        )

    def _tell(self, happenings: list[Happening]) -> None:
        for one in happenings:
            if one.serious:
                self._write(EnergyNote, missing=False, message=one.text, gpu=one.gpu, xid=one.xid)
            self.send({"message": one.text, "serious": one.serious})

    def _note_failures(self, failures: dict[str, str]) -> None:
        for name, reason in failures.items():
            if name not in self.failing:
                self.problem(f"{name} cannot be read ({reason}); its energy is not counted from here on")
        for name in self.failing - failures.keys():
            self.problem(f"{name} can be read again", missing=False)
        self.failing = set(failures)

    def problem(self, message: str, *, missing: bool = True) -> None:
        """One line in the ledger and one message for the parent to log."""
        self._write(EnergyNote, missing=missing, message=message)
        self.send({"message": message})

    def _write(self, kind: type[EnergyLine], **fields: Any) -> None:
        """A line of the ledger. One that the disk refuses waits in memory, which is said once."""
        waited = bool(self._ledger.unwritten)
        try:
            self._ledger.write(kind, **fields)
        except OSError as error:
            if not waited:
                self.send({"message": f"the ledger waits in memory for its disk: {error}"})
            return
        if waited:
            self.send({"message": "the ledger's disk takes it again; nothing is missing"})

    def end(self, reason: str) -> None:
        """The last reading, the last line."""
        self.tick()
        self._count_startup()
        self.flush()
        self._stop(reason)

    def end_before_ready(self) -> None:
        """The run ended while the hardware was being found: its seconds get the power of right after it."""
        time.sleep(FIRST_READINGS_S)
        seconds = time.monotonic() - self.last_s
        readings, failures = self.hardware.read(seconds)
        self._note_failures(failures)
        self.first.add(readings, seconds)
        self._count_startup()
        self.send({"joules": self.total_j})
        self._stop("stopped")

    def _stop(self, reason: str) -> None:
        self._write(EnergyStop, reason=reason, total_j=round(self.total_j, 3))
        if lines := len(self._ledger.unwritten):
            self.send({"message": f"{lines} lines of the ledger are lost: the account lacks their energy"})

    def run(self, marks: Marks, parent_gone: Callable[[], bool]) -> None:
        """Ticks until the marks end or the parent is gone."""
        tick_s = max(min(1.0, self.setting.interval_s), MIN_TICK_S)
        next_s = time.monotonic() + tick_s
        written_s = time.monotonic()
        while marks.open and not parent_gone():
            for mark in marks.wait(max(0.0, next_s - time.monotonic())):
                self.mark(mark)
            if time.monotonic() >= next_s:
                self.tick()
                next_s = max(next_s + tick_s, time.monotonic())
                if time.monotonic() - written_s >= self.setting.interval_s - tick_s / 2:
                    self.flush()
                    written_s = time.monotonic()
        self.end("the training process is gone" if marks.stopped_s is None else "stopped")

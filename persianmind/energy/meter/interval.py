"""What a meter adds up between two lines of its ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from persianmind.energy.meter.hardware import Kind
from persianmind.energy.meter.pipes import Mark
from persianmind.run.energy_records import EnergyReading
from persianmind.run.records import Phase


@dataclass
class Joules:
    """A sum over readings, and the sums of their least and their most; None of what is measured."""

    value: float = 0.0
    low: float | None = None
    high: float | None = None

    def add(self, value: float, low: float | None, high: float | None, factor: float = 1.0) -> None:
        self.value += value * factor
        if low is not None and high is not None:
            self.low, self.high = (self.low or 0.0) + low * factor, (self.high or 0.0) + high * factor


@dataclass
class Interval:
    """What is being added up for the next line; `step_from` and `step` are the first and last step in it."""

    phase: Phase
    stage: str
    step_from: int
    step: int
    seconds: float = 0.0
    joules: dict[tuple[str, Kind, str], Joules] = field(default_factory=dict)  # by component, kind, source

    def add(self, readings: list[EnergyReading], seconds: float) -> None:
        self.seconds += seconds
        for item in readings:
            key = (item.component, item.kind, item.source)
            self.joules.setdefault(key, Joules()).add(item.joules, item.low_joules, item.high_joules)

    def covers(self, mark: Mark | Interval) -> bool:
        """Whether what is marked is the same work, a later step at most."""
        return (self.phase, self.stage) == (mark.phase, mark.stage)

    def next(self) -> Interval:
        """The empty one that begins where this one ends."""
        return Interval(self.phase, self.stage, self.step, self.step)

"""The lines of energy/<node>.jsonl: joules per interval, and what a meter says of the GPUs beside them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from persianmind.run.record import RunRecord
from persianmind.run.records import Phase


def _zoned(time: str) -> str:
    if datetime.fromisoformat(time).tzinfo is None:
        raise ValueError("the time names no zone")
    return time


ZonedTime = Annotated[str, AfterValidator(_zoned)]  # ISO 8601 with a zone: the grid's curve goes by UTC hours


class GpuFacts(RunRecord):
    """What holds for one GPU when a meter begins. gpu: as in the readings, "gpu0". None: it cannot be read.

    power_limit_w: the limit in force; default_limit_w: the one the board comes with.
    """

    gpu: str
    power_limit_w: FiniteFloat | None = None
    default_limit_w: FiniteFloat | None = None
    max_clock_mhz: int | None = None


class GpuInterval(RunRecord):
    """One GPU over one interval of the ledger.

    samples: how often it was looked at. throttled: for each reason, in how many of them its clocks were held
    down. clock_mhz: mean of the SM clock; temperature_c: the highest; power_limit_w: the last.
    """

    gpu: str
    samples: Annotated[int, Field(gt=0)]
    throttled: dict[str, int] = Field(default_factory=dict)
    clock_mhz: FiniteFloat | None = None
    temperature_c: FiniteFloat | None = None
    power_limit_w: FiniteFloat | None = None


class EnergyLine(RunRecord):
    """What every line of energy/<node>.jsonl has. `monotonic_s` orders the lines of one boot, whatever the
    wall clock does; `attempt` names the meter process that wrote it. number: of the lines of its
    attempt, from 1; a line that was lost or stands twice is known by it. None: the training wrote it."""

    time: ZonedTime
    monotonic_s: float
    attempt: str
    node: str
    number: int | None = None


class EnergyStart(EnergyLine):
    """A meter began. pid: of the process it counts for. host: what codecarbon says of the machine. gpus: its
    NVIDIA GPUs. unknown: parts that are there and whose power nobody knows; they are in no reading."""

    kind: Literal["start"] = "start"
    resumed_step: int | None
    interval_s: float
    pid: int
    codecarbon: str
    host: dict[str, Any]
    gpus: list[GpuFacts] = Field(default_factory=list)
    unknown: list[str] = Field(default_factory=list)


class EnergyResumed(EnergyLine):
    """The run went on from a checkpoint: `resumed_step` is the last step that it holds."""

    kind: Literal["resumed"] = "resumed"
    resumed_step: int


class EnergyReading(RunRecord):
    """Joules of one component in one interval.

    low_joules, high_joules: of an estimate, what the models that `source` names give at the least and at the
    most; None of what is measured.
    """

    component: str
    joules: FiniteFloat
    kind: Literal["measured", "estimated"]
    source: str
    low_joules: FiniteFloat | None = None
    high_joules: FiniteFloat | None = None


class EnergySample(EnergyLine):
    """One interval: its work went from step `step_from` to `step`, in one phase of the run.

    stage: of training, the recipe's stage; of another phase, its part ("data", the stage scored), or "".
    """

    kind: Literal["sample"] = "sample"
    seconds: Annotated[FiniteFloat, Field(gt=0)]
    phase: Phase
    stage: str
    step_from: int
    step: int
    readings: list[EnergyReading]
    gpus: list[GpuInterval] = Field(default_factory=list)

    @property
    def joules(self) -> float:
        """All components together."""
        return sum(reading.joules for reading in self.readings)

    @property
    def label(self) -> str:
        """For people: a training stage's own name, else "prepare:data", "evaluate:pretrain" and the like."""
        if self.phase is Phase.TRAIN and self.stage not in set(Phase):
            return self.stage
        return f"{self.phase}:{self.stage}" if self.stage else str(self.phase)


class EnergyNote(EnergyLine):
    """Something people should know; `missing`: energy is not counted because of it. gpu, xid: an Xid error of
    a GPU."""

    kind: Literal["note"] = "note"
    missing: bool
    message: str
    gpu: str | None = None
    xid: int | None = None


class EnergyStop(EnergyLine):
    """A meter ended in order. total_j: of the whole attempt."""

    kind: Literal["stop"] = "stop"
    reason: str
    total_j: float

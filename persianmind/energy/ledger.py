"""Reading energy/<node>.jsonl back: attempts in order, their samples, and what went wrong meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from persianmind.common.checksum import parse_checked_line
from persianmind.run.energy_records import (
    EnergyLine,
    EnergyNote,
    EnergyResumed,
    EnergySample,
    EnergyStart,
    EnergyStop,
    GpuFacts,
)
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase

KINDS: dict[str, type[EnergyLine]] = {
    "start": EnergyStart,
    "resumed": EnergyResumed,
    "sample": EnergySample,
    "note": EnergyNote,
    "stop": EnergyStop,
}


@dataclass
class Attempt:
    """What one meter process wrote: from one start of the run on one node to its end.

    number: its order in the node's file. unknown: parts whose power nobody knows. end: what the meter said
    last; None where it was killed itself. xids: notes of Xid errors. numbers: of its lines.
    """

    node: str
    name: str
    started: str
    number: int = 0
    resumed_step: int | None = None
    samples: list[EnergySample] = field(default_factory=list)
    host: dict[str, Any] = field(default_factory=dict)
    gpus: list[GpuFacts] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    xids: list[EnergyNote] = field(default_factory=list)
    end: EnergyStop | None = None
    interval_s: float | None = None
    numbers: set[int | None] = field(default_factory=set)

    @property
    def stopped(self) -> str | None:
        """Why the meter ended; None where it was killed itself."""
        return None if self.end is None else self.end.reason

    def first_training(self) -> EnergySample | None:
        """Where the training of this attempt began, if it trained at all."""
        return next((sample for sample in self.samples if sample.phase is Phase.TRAIN), None)


@dataclass
class Ledger:
    """All attempts of all nodes. damage: lines that are left out or gone; problems: what else makes the
    account incomplete."""

    attempts: list[Attempt] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def samples(self) -> Iterator[EnergySample]:
        """Every sample, node by node, in the order written."""
        return (sample for attempt in self.attempts for sample in attempt.samples)

    @property
    def nodes(self) -> list[str]:
        """Node names in order of first appearance."""
        return list(dict.fromkeys(attempt.node for attempt in self.attempts))


def read_ledger(folder: RunFolder) -> Ledger:
    """Reads every energy/*.jsonl of a run. A missing folder is an empty ledger that says so.

    Lines that are damaged, or of a kind or form that is not known here, are left out and counted as
    damage; a line that a kill cut short held at most one interval. So are lines that are gone or stand
    twice.
    """
    ledger = Ledger()
    files = sorted(folder.energy.glob("*.jsonl"))
    if not files:
        ledger.problems.append("no energy was recorded: the run folder has no energy/*.jsonl")
    for path in files:
        _read_node(path, ledger)
    return ledger


def _read_node(path: Path, ledger: Ledger) -> None:
    by_name: dict[str, Attempt] = {}
    damaged = unknown = 0
    last_time = ""
    for line in _lines(path):
        content = parse_checked_line(line)
        if content is None:
            damaged += 1
            continue
        record = _as_record(content)
        if record is None:
            unknown += 1
            continue
        if record.time < last_time:
            ledger.notes.append(
                f"{path.stem}: the wall clock was set back from {last_time} to {record.time}; no joule "
                "depends on it"
            )
        last_time = record.time
        new = Attempt(path.stem, record.attempt, record.time, number=len(by_name))
        _apply(record, by_name.setdefault(record.attempt, new), ledger)
    if not (last_time or damaged or unknown):
        ledger.damage.append(f"energy/{path.name}: no line in it; its energy is not counted")
    if damaged:
        ledger.damage.append(
            f"energy/{path.name}: {damaged} damaged line(s), such as a kill leaves, were left out"
        )
    if unknown:
        ledger.damage.append(f"energy/{path.name}: {unknown} line(s) of an unknown kind were left out")
    for attempt in by_name.values():
        ledger.damage.extend(_lost(attempt))
    ledger.attempts.extend(by_name.values())


def _lost(attempt: Attempt) -> Iterator[str]:
    """What is not there of an attempt's lines, damaged ones among it."""
    numbers = [number for number in attempt.numbers if number is not None]
    written = max(numbers, default=0)
    if (lost := written - len(numbers)) <= 0:
        return
    how_much = ""
    if attempt.end is not None:
        counted_j = sum(sample.joules for sample in attempt.samples)
        how_much = f", {attempt.end.total_j - counted_j:,.0f} of {attempt.end.total_j:,.0f} J"
    yield (
        f"energy/{attempt.node}.jsonl: of {written} lines of the attempt of {attempt.started} {lost} are lost"
        f"{how_much}; "
        "their energy is not counted"
    )


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        yield from (line for line in handle if line.strip())


def _as_record(content: dict[str, Any]) -> EnergyLine | None:
    kind = KINDS.get(str(content.get("kind")))
    try:
        return None if kind is None else kind.model_validate(content)
    except ValidationError:
        return None


def _apply(record: EnergyLine, attempt: Attempt, ledger: Ledger) -> None:
    if record.number is not None and record.number in attempt.numbers:
        ledger.damage.append(
            f"energy/{attempt.node}.jsonl: a line of {record.time} stands twice; it counts once"
        )
        return
    attempt.numbers.add(record.number)
    match record:
        case EnergySample():
            attempt.samples.append(record)
        case EnergyStart():
            attempt.resumed_step, attempt.interval_s = record.resumed_step, record.interval_s
            attempt.host, attempt.gpus, attempt.unknown = record.host, record.gpus, record.unknown
        case EnergyResumed():
            attempt.resumed_step = record.resumed_step
        case EnergyStop():
            attempt.end = record
        case EnergyNote():
            if record.xid is not None:
                attempt.xids.append(record)
            target = ledger.problems if record.missing else ledger.notes
            target.append(f"{attempt.node}, {record.time}: {record.message}")

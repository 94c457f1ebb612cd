"""Reading energy/<node>.jsonl back: attempts in order, their samples, and what went wrong meanwhile."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

# Stages that are no optimizer steps; anything else is a training stage of the recipe. A part may follow a
# colon: "prepare:data", "evaluate:pretrain".
OTHER_STAGES = frozenset({"prepare", "start", "base-evaluation", "evaluate", "export", "report"})
# Every start of a run goes through these; what they made is kept, so doing them again is no lost work.
KEPT_STAGES = frozenset({"prepare", "start"})


def is_training(stage: str) -> bool:
    """Whether a stage name is one of the recipe's stages ("evaluate:pretrain" and the like are not)."""
    return stage.partition(":")[0] not in OTHER_STAGES


def is_kept(stage: str) -> bool:
    """Whether a later attempt goes on from what this stage made, instead of doing it again."""
    return stage.partition(":")[0] in KEPT_STAGES


@dataclass(frozen=True)
class Part:
    """Joules of one component in one sample. `kind` is "measured" or "estimated"."""

    component: str
    joules: float
    kind: str
    source: str


@dataclass(frozen=True)
class Sample:
    """One interval of one node: its work went from step `step_from` to `step` of `stage`."""

    node: str
    attempt: str
    time: str
    seconds: float
    stage: str
    step_from: int
    step: int
    parts: tuple[Part, ...]

    @property
    def joules(self) -> float:
        """All components together."""
        return sum(part.joules for part in self.parts)


@dataclass
class Attempt:
    """What one meter process wrote: from one start of the run on one node to its end."""

    node: str
    name: str
    started: str
    number: int = 0  # order in the node's file
    resumed_step: int | None = None
    samples: list[Sample] = field(default_factory=list)
    stopped: str | None = None  # None: the meter itself was killed
    host: dict[str, Any] = field(default_factory=dict)
    interval_s: float | None = None

    def first_training(self) -> Sample | None:
        """Where the training of this attempt began, if it trained at all."""
        return next((sample for sample in self.samples if is_training(sample.stage)), None)


@dataclass
class Ledger:
    """All attempts of all nodes; `problems` are the things that make the account incomplete."""

    attempts: list[Attempt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def samples(self) -> Iterator[Sample]:
        """Every sample, node by node, in the order written."""
        return (sample for attempt in self.attempts for sample in attempt.samples)

    @property
    def nodes(self) -> list[str]:
        """Node names in order of first appearance."""
        return list(dict.fromkeys(attempt.node for attempt in self.attempts))


def read_ledger(run: Path) -> Ledger:
    """Reads every energy/*.jsonl of a run. A missing folder is an empty ledger that says so.

    A line that a kill cut short is skipped and counted among the problems; it held at most one interval.
    """
    ledger = Ledger()
    files = sorted((run / "energy").glob("*.jsonl"))
    if not files:
        ledger.problems.append("no energy was recorded: the run folder has no energy/*.jsonl")
    for path in files:
        _read_node(path, ledger)
    return ledger


def _read_node(path: Path, ledger: Ledger) -> None:
    by_name: dict[str, Attempt] = {}
    broken = 0
    last_time = ""
    for line in _lines(path):
        record = _parse(line)
        if record is None:
            broken += 1
            continue
        name, time = record["attempt"], record["time"]
        if time < last_time:
            ledger.notes.append(
                f"{path.stem}: the wall clock was set back from {last_time} to {time}; no joule depends on it"
            )
        last_time = time
        if name not in by_name:
            by_name[name] = Attempt(path.stem, name, time, number=len(by_name))
        try:
            _apply(record, by_name[name], ledger)
        except (KeyError, TypeError, ValueError, AttributeError):
            broken += 1
    if broken:
        ledger.problems.append(f"{path.stem}: {broken} damaged line(s), cut short by a kill, were left out")
    ledger.attempts.extend(by_name.values())


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        yield from (line for line in handle if line.strip())


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line as a record with its head in order, or None."""
    try:
        record = json.loads(line)
        if not all(isinstance(record[key], str) for key in ("kind", "attempt", "time")):
            return None
        moment = datetime.fromisoformat(record["time"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if moment.tzinfo is not None else None


def _apply(record: dict[str, Any], attempt: Attempt, ledger: Ledger) -> None:
    kind = record["kind"]
    if kind == "sample":
        attempt.samples.append(_sample(record, attempt))
    elif kind in ("start", "resumed"):
        if record.get("resumed_step") is not None:
            attempt.resumed_step = int(record["resumed_step"])
        attempt.host = record.get("host") or attempt.host
        attempt.interval_s = record.get("interval_s") or attempt.interval_s
    elif kind == "stop":
        attempt.stopped = str(record.get("reason", ""))
    elif kind == "note":
        target = ledger.problems if record.get("missing") else ledger.notes
        target.append(f"{attempt.node}, {record['time']}: {record.get('message', '')}")


def _sample(record: dict[str, Any], attempt: Attempt) -> Sample:
    step = int(record.get("step", 0))
    seconds = float(record["seconds"])
    parts = tuple(_parts(record.get("joules", [])))
    if not seconds > 0 or not all(math.isfinite(value) for value in (seconds, *(p.joules for p in parts))):
        raise ValueError("a sample without a finite duration and finite joules")
    return Sample(
        node=attempt.node,
        attempt=attempt.name,
        time=str(record["time"]),
        seconds=seconds,
        stage=str(record.get("stage", "prepare")),
        step_from=int(record.get("step_from", step)),
        step=step,
        parts=parts,
    )


def _parts(items: Iterable[dict[str, Any]]) -> Iterator[Part]:
    for item in items:
        yield Part(str(item["component"]), float(item["joules"]), str(item["kind"]), str(item["source"]))

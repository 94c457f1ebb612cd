"""How the training went: curves over the steps, what they add up to, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from persianmind.report.curves import GIB, loss_by_language, loss_by_source, small_charts
from persianmind.report.drawing import Drawing
from persianmind.report.faults import Faults, faults
from persianmind.report.read import RunFiles
from persianmind.report.values import number, quotient
from persianmind.report.verdict import time_spent_text
from persianmind.report.view import Bar, Cell, Facts, bars, count, figure, plain
from persianmind.run.records import Phase, StepRecord


@dataclass(frozen=True, slots=True)
class TrainingView:
    """by_language, by_source: each twice, for wide and narrow screens. small: (title, chart). memory: of rank
    0 by what holds it, at the last step. time: by stage and phase, of all nodes together."""

    by_language: list[Drawing]
    by_source: list[Drawing]
    small: list[tuple[str, Drawing]]
    totals: Facts
    memory: list[Bar]
    time: list[Bar]
    faults: Faults


def training(run: RunFiles) -> TrainingView | None:
    """Loss, rates, memory and speed over the optimizer steps."""
    if not run.steps:
        return None
    return TrainingView(
        loss_by_language(run),
        loss_by_source(run),
        list(small_charts(run)),
        list(_totals(run)),
        _memory(run.steps[-1]),
        _time(run),
        faults(run),
    )


def _memory(step: StepRecord) -> list[Bar]:
    if step.memory is None:
        return []
    kinds = {name: number(size) or 0.0 for name, size in step.memory.model_dump().items()}
    unit, unit_bytes = ("GiB", GIB) if sum(kinds.values()) >= GIB else ("MiB", GIB / 1024)
    return bars(
        [(name, size, size, f"{size / unit_bytes:,.2f} {unit}") for name, size in kinds.items() if size > 0]
    )


def _time(run: RunFiles) -> list[Bar]:
    seconds: dict[str, float] = {}
    for sample in run.ledger.samples:
        seconds[sample.label] = seconds.get(sample.label, 0.0) + sample.seconds
    return bars([(name, spent, spent, time_spent_text(spent)) for name, spent in seconds.items()])


def _totals(run: RunFiles) -> Iterator[tuple[str, Cell]]:
    steps = run.steps
    seconds, tokens, useful = (_total(steps, key) for key in ("seconds", "tokens", "useful_tokens"))
    yield "optimizer steps", count(len(steps))
    yield "tokens", count(tokens)
    if (percent := quotient(useful, tokens, 100)) is not None:
        yield "of them useful", figure(percent, 1, "%")
    if seconds:
        yield "training time", plain(time_spent_text(seconds))
        yield "tokens per second, mean", count(quotient(tokens, seconds))
    # From the ledger: the joules in metrics.jsonl are the running total of one attempt on one node.
    joules = sum(sample.joules for sample in run.ledger.samples if sample.phase is Phase.TRAIN)
    if joules and (per_thousand := quotient(joules, tokens, 1000)) is not None:
        yield "joules per thousand tokens", figure(per_thousand, 1)
    losses = [(loss, step.step) for step in steps if (loss := number(step.loss)) is not None]
    if losses:
        highest, where = max(losses)
        yield "last loss", figure(losses[-1][0], 3, "nats per token")
        yield "highest loss of one step", Cell(figure(highest).text, origin=f"step {where:,}", number=True)


def _total(steps: list[StepRecord], key: str) -> float | None:
    return number(sum(value for step in steps if (value := number(getattr(step, key))) is not None))

"""How the training went: curves over the steps, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from persianmind.report.charts import Chart, Drawing, Series, draw, draw_wide
from persianmind.report.read import RunFiles
from persianmind.report.series import Point, smooth, thin
from persianmind.report.values import number, quotient
from persianmind.report.view import Cell, Facts, count, figure
from persianmind.run.records import Phase, StepRecord

MARK_CHARACTERS = 16  # of a stage's name beside its line in a chart
SMALL_CHARTS = (
    ("tokens_per_s", "Tokens per second", "t-third"),
    ("grad_norm", "Gradient norm", "t-english"),
    ("learning_rate", "Learning rate", "t-soft"),
)


@dataclass(frozen=True, slots=True)
class TrainingView:
    """loss: twice, for wide and narrow screens. small: (title, chart)."""

    loss: list[Drawing]
    steps_done_again: int
    small: list[tuple[str, Drawing]]
    totals: Facts


def training(run: RunFiles) -> TrainingView | None:
    """Loss, learning rate, gradient norm and speed over the optimizer steps."""
    if not run.steps:
        return None
    marks = _stage_marks(run.steps)
    loss = _points(run.steps, "loss")
    series = [
        Series("each step", thin(loss), "t-target", quiet=True),
        Series("smoothed", thin(smooth(loss)), "t-target"),
    ]
    small = []
    for key, title, tone in SMALL_CHARTS:
        curve = Series(title, thin(_points(run.steps, key)), tone)
        if drawing := draw(Chart(f"{title} over steps", [curve], marks=marks, from_zero=True)):
            small.append((title, drawing))
    return TrainingView(
        draw_wide(Chart("Loss over steps", series, marks=marks)),
        run.steps_done_again,
        small,
        list(_totals(run)),
    )


def duration(seconds: float) -> Cell:
    """Seconds as people say them."""
    if seconds < 120:
        return figure(seconds, 1, "s")
    hours, minutes = seconds // 3600, seconds % 3600 / 60
    if not hours:
        return figure(minutes, 1, "min")
    return Cell(f"{hours:,.0f} h {minutes:.0f} min")


def _points(steps: list[StepRecord], key: str) -> list[Point]:
    return [(float(i), v) for i, step in enumerate(steps, 1) if (v := number(getattr(step, key))) is not None]


def _stage_marks(steps: list[StepRecord]) -> list[tuple[float, str]]:
    marks: list[tuple[float, str]] = []
    before: str | None = None
    for index, step in enumerate(steps, 1):
        if step.stage != before:
            before = step.stage
            marks.append((float(index), before[:MARK_CHARACTERS]))
    return marks


def _totals(run: RunFiles) -> Iterator[tuple[str, Cell]]:
    steps = run.steps
    seconds, tokens, useful = (_total(steps, key) for key in ("seconds", "tokens", "useful_tokens"))
    yield "optimizer steps", count(len(steps))
    yield "tokens", count(tokens)
    if (percent := quotient(useful, tokens, 100)) is not None:
        yield "of them useful", figure(percent, 1, "%")
    if seconds:
        yield "training time", duration(seconds)
        yield "tokens per second, mean", count(quotient(tokens, seconds))
    # From the ledger: the joules in metrics.jsonl are the running total of one attempt on one node.
    joules = sum(sample.joules for sample in run.ledger.samples if sample.phase is Phase.TRAIN)
    if joules and (per_thousand := quotient(joules, tokens, 1000)) is not None:
        yield "joules per thousand tokens", figure(per_thousand, 1)
    yield "last loss", figure(number(steps[-1].loss))


def _total(steps: list[StepRecord], key: str) -> float | None:
    return number(sum(value for step in steps if (value := number(getattr(step, key))) is not None))

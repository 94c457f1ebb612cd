"""How well each stage predicts held-out text: a table with intervals, and lines of the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from persianmind.report.charts import Chart, Series, draw_wide
from persianmind.report.drawing import Drawing
from persianmind.report.gains import NOISE_PERCENT, change_percent, gains
from persianmind.report.languages import PageLanguage, languages
from persianmind.report.read import RunFiles
from persianmind.report.values import number
from persianmind.report.view import GAP, Cell, Facts, Table, figure, plain
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.scores import scores_by_stage

STAGE_CHARACTERS = 24  # of a stage's name under a chart

Scores = Mapping[str, Mapping[str, EvaluationResult]]  # by stage, then by language


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Scores after every stage, as a table and as lines (none before the first stage).

    forgetting: the change of each language that the base knew, and whether it is clear of chance.
    """

    table: Table
    chart: list[Drawing]
    forgetting: Facts


def evaluation(run: RunFiles) -> EvaluationView | None:
    """Bits per byte after every stage, with their intervals."""
    scores = scores_by_stage(run.results)
    if not scores:
        return None
    shown = [one for one in languages(run) if any(one.code in found for found in scores.values())]
    header = ["after", *(title for one in shown for title in (f"{one.name}, bits/byte", "95% interval"))]
    base = next(iter(scores))
    body = [[plain(stage), *_cells(scores, stage, base, shown)] for stage in scores]
    chart = _change_chart(scores, shown) if len(scores) > 1 else []
    return EvaluationView(Table(header, body), chart, _forgetting(run))


def _forgetting(run: RunFiles) -> Facts:
    kept = [gain for gain in gains(run) if gain.language.role != "target"]
    return [(gain.language.name, Cell(gain.path, origin=f"{gain.big} {gain.verdict}")) for gain in kept]


def _cells(scores: Scores, stage: str, base: str, shown: list[PageLanguage]) -> list[Cell]:
    cells = []
    for code in (one.code for one in shown):
        score = scores[stage].get(code)
        change = None if stage == base else change_percent(score, scores[base].get(code))
        cells += [_with_change(score, change), _interval(score)]
    return cells


def _interval(score: EvaluationResult | None) -> Cell:
    if score is None:
        return GAP
    low, high = number(score.ci_low), number(score.ci_high)
    shown = None if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return Cell(shown, number=True, origin=f"{score.n_documents:,} documents")


def _with_change(score: EvaluationResult | None, percent: float | None) -> Cell:
    cell = figure(None if score is None else number(score.bits_per_byte))
    if percent is None:
        return cell
    tone = "flat" if abs(percent) < NOISE_PERCENT else "down" if percent < 0 else "up"
    return Cell(cell.text, cell.unit, cell.number, change=f"{percent:+.1f}%".replace("-", "−"), tone=tone)


def _change_chart(scores: Scores, shown: list[PageLanguage]) -> list[Drawing]:
    """All languages on one axis, so that a small loss is not drawn as large as a great gain."""
    base = next(iter(scores.values()))
    series = []
    for one in shown:
        changes = [
            (float(i), change_percent(found.get(one.code), base.get(one.code)))
            for i, found in enumerate(scores.values())
        ]
        points = [(x, y) for x, y in changes if y is not None]
        series.append(Series(one.name, points, f"t-{one.role}", dotted=True))
    ticks = [(float(i), stage[:STAGE_CHARACTERS]) for i, stage in enumerate(scores)]
    chart = Chart(
        "Change of bits per byte against the base", series, x_name="after the stage", y_name="percent",
        ticks=ticks, zero_line=True, y_format=_axis_percent,
    )  # fmt: skip
    return draw_wide(chart)


def _axis_percent(value: float) -> str:
    return f"{value:+g}%".replace("-", "−") if value else "0"

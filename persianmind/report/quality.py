"""What the reader wants first: did the language get better, did English survive, what did it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from persianmind.energy.show import co2_text, energy_text, kwh_text
from persianmind.report.charts import Chart, Drawing, Series, draw_wide
from persianmind.report.languages import PageLanguage, languages
from persianmind.report.read import RunFiles
from persianmind.report.values import number, quotient
from persianmind.report.view import GAP, Cell, Table, figure, plain
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.scores import scores_by_stage

NOISE_PERCENT = 0.5  # a change of bits per byte below this is called unchanged
STAGE_CHARACTERS = 24  # of a stage's name under a chart

Scores = Mapping[str, Mapping[str, EvaluationResult]]  # by stage, then by language


@dataclass(frozen=True, slots=True)
class Card:
    """One of the three answers at the top. big: None is a gap."""

    kind: str
    title: str
    big: str | None
    verdict: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Scores after every stage, as a table and as lines (none before the first stage)."""

    table: Table
    chart: list[Drawing]


@dataclass(frozen=True, slots=True)
class SampleView:
    """What was written after one prompt: (stage, text)."""

    prompt: str
    answers: list[tuple[str, str]]


def hero(run: RunFiles) -> list[Card]:
    """Cards for the target language, for English (or another that is held out), and for the cost."""
    scores = scores_by_stage(run.results)
    return [*(_language_card(scores, one) for one in languages(run)[:2]), _cost_card(run)]


def evaluation(run: RunFiles) -> EvaluationView | None:
    """Bits per byte after every stage, with their intervals."""
    scores = scores_by_stage(run.results)
    if not scores:
        return None
    shown = [one for one in languages(run) if any(one.code in found for found in scores.values())]
    header = ["after", *(title for one in shown for title in (f"{one.name}, bits/byte", "95% interval"))]
    base = next(iter(scores))
    body = [[plain(stage), *_cells(scores, stage, base, shown)] for stage in scores]
    return EvaluationView(Table(header, body), _change_chart(scores, shown) if len(scores) > 1 else [])


def samples(run: RunFiles) -> list[SampleView]:
    """Text the model generated, by prompt."""
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    for item in run.results.samples:
        by_prompt.setdefault(item.prompt, []).append((item.stage, item.text))
    return [SampleView(prompt, answers) for prompt, answers in by_prompt.items()]


def _bits(scores: Scores, stage: str, code: str) -> float | None:
    score = scores[stage].get(code)
    return None if score is None else number(score.bits_per_byte)


def _percent(bits: float | None, base: float | None) -> float | None:
    """Change against the base in percent."""
    return None if bits is None or base is None else quotient(bits - base, base, 100)


def _language_card(scores: Scores, language: PageLanguage) -> Card:
    code, kind, title = language.code, language.role, f"{language.name}, held-out text"
    values = [bits for stage in scores if (bits := _bits(scores, stage, code)) is not None]
    if not values:
        return Card(kind, title, None, "not measured yet")
    first, last = values[0], values[-1]
    percent = _percent(last, first)
    if len(values) == 1 or percent is None:
        return Card(
            kind, title, figure(last).text, "the base model, before training", f"{last:.3f} bits per byte"
        )
    path = f"{first:.3f} → {last:.3f} bits per byte"
    return Card(kind, title, _signed(percent), _verdict(percent, kind), path)


def _verdict(percent: float, role: str) -> str:
    if abs(percent) < NOISE_PERCENT:
        return "unchanged against the base model"
    if percent < 0:
        return "better than the base model"
    return "worse than the base model" + ("" if role == "target" else ": some was forgotten")


def _signed(percent: float) -> str:
    return f"{percent:+.1f}%".replace("-", "−")


def _cost_card(run: RunFiles) -> Card:
    account = run.account
    if not run.ledger.attempts or account is None:
        return Card("spent", "Spent", None, "no energy was recorded")
    cost = account["cost"]
    money = f", {cost['amount']:,.2f} {cost['currency']}" if cost else ""
    return Card(
        "spent", "Spent", kwh_text(account["kwh"]), energy_text(account), f"CO₂eq: {co2_text(account)}{money}"
    )


def _cells(scores: Scores, stage: str, base: str, shown: list[PageLanguage]) -> list[Cell]:
    cells = []
    for code in (one.code for one in shown):
        bits = _bits(scores, stage, code)
        change = None if stage == base else _percent(bits, _bits(scores, base, code))
        cells.append(_with_change(figure(bits), change))
        cells.append(_interval(scores[stage].get(code)))
    return cells


def _interval(score: EvaluationResult | None) -> Cell:
    low, high = (None, None) if score is None else (number(score.ci_low), number(score.ci_high))
    if score is None or low is None or high is None:
        return GAP
    return Cell(f"{low:.3f} to {high:.3f}", number=True, origin=f"{score.n_documents:,} documents")


def _with_change(cell: Cell, percent: float | None) -> Cell:
    if percent is None:
        return cell
    tone = "flat" if abs(percent) < NOISE_PERCENT else "down" if percent < 0 else "up"
    return Cell(cell.text, cell.unit, cell.number, change=_signed(percent), tone=tone)


def _change_chart(scores: Scores, shown: list[PageLanguage]) -> list[Drawing]:
    """All languages on one axis, so that a small loss is not drawn as large as a great gain."""
    base = next(iter(scores))
    series = []
    for one in shown:
        changes = [
            (float(i), _percent(_bits(scores, s, one.code), _bits(scores, base, one.code)))
            for i, s in enumerate(scores)
        ]
        points = [(x, y) for x, y in changes if y is not None]
        series.append(Series(one.name, points, f"t-{one.role}", dots=True))
    ticks = [(float(i), stage[:STAGE_CHARACTERS]) for i, stage in enumerate(scores)]
    label = "Percent change of bits per byte after each stage"
    return draw_wide(Chart(label, series, ticks=ticks, zero_line=True, y_format=_axis_percent))


def _axis_percent(value: float) -> str:
    return f"{value:+g}%".replace("-", "−") if value else "0"

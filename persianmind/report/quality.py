"""What the reader wants first: did Persian get better, did English survive, what did it cost."""

from __future__ import annotations

from typing import Any

from persianmind.energy.show import kwh_text, mass_text
from persianmind.report.charts import Chart, Series, draw_wide
from persianmind.report.html import GAP, block, figure, panel, persian, table, text
from persianmind.report.read import RunFiles, number, rows, section

LANGUAGES = (("fa", "Persian", "t-fa"), ("en", "English", "t-en"))
NOISE_PERCENT = 0.5  # a change of bits per byte below this is called unchanged


def hero(run: RunFiles) -> str:
    """Three cards: Persian, English, cost."""
    cards = [_language_card(run, code, name) for code, name, _ in LANGUAGES]
    return f'<div class="hero">{"".join(cards)}{_cost_card(run)}</div>'


def _bits(row: dict[str, Any], code: str) -> float | None:
    return number(section(row.get(code)).get("bits_per_byte"))


def _evaluations(run: RunFiles) -> list[dict[str, Any]]:
    return rows(run.results.get("perplexity"))


def _language_card(run: RunFiles, code: str, name: str) -> str:
    values = [bits for row in _evaluations(run) if (bits := _bits(row, code)) is not None]
    if not values:
        return _card(code, f"{name}, held-out text", GAP, "not measured yet", "")
    first, last = values[0], values[-1]
    path = f"{first:.3f} → {last:.3f} bits per byte" if len(values) > 1 else f"{last:.3f} bits per byte"
    if len(values) == 1 or not first:
        return _card(code, f"{name}, held-out text", f"{last:.3f}", "the base model, before training", path)
    percent = 100 * (last - first) / first
    return _card(code, f"{name}, held-out text", _signed(percent), _verdict(percent, code), path)


def _verdict(percent: float, code: str) -> str:
    if abs(percent) < NOISE_PERCENT:
        return "unchanged against the base model"
    if percent < 0:
        return "better than the base model"
    return "worse than the base model" if code == "fa" else "worse than the base model: some was forgotten"


def _signed(percent: float) -> str:
    return f"{percent:+.1f}%".replace("-", "−")


def _cost_card(run: RunFiles) -> str:
    energy = run.energy
    if not run.ledger.attempts or not energy:
        return _card("spent", "Spent", GAP, "no energy was recorded", "")
    share = energy["measured_ratio"]
    known = "nothing counted yet" if share is None else f"{share:.0%} of it measured, the rest estimated"
    cost = energy["cost"]
    money = f", {cost['amount']:,.2f} {cost['currency']}" if cost else ""
    spent = f"{mass_text(energy['co2_g'])} CO₂eq{money}"
    return _card("spent", "Spent", kwh_text(energy["kwh"]), spent, known)


def _card(kind: str, title: str, big: str, verdict: str, detail: str) -> str:
    shown = big if big == GAP else text(big)
    return (
        f'<div class="card c-{kind}"><h3>{text(title)}</h3><div class="big">{shown}</div>'
        f'<p class="verdict">{text(verdict)}</p><p>{text(detail)}</p></div>'
    )


def evaluation(run: RunFiles) -> str:
    """Bits per byte and perplexity after every stage, as a table and as lines."""
    found = _evaluations(run)
    if not found:
        return ""
    body = [[text(row.get("stage", "?")), *_cells(row, found[0])] for row in found]
    header = ["after", "Persian, bits/byte", "perplexity", "English, bits/byte", "perplexity"]
    lead = (
        "Bits per byte compare models with different vocabularies; perplexity is per token and does not, "
        "because the expanded vocabulary has longer tokens. Lower is better for both."
    )
    chart = panel("Change of bits per byte against the base model", _change_chart(found)) if found[1:] else ""
    return block("evaluation", "Did the languages get better?", lead, table(header, body, "num"), chart)


def _cells(row: dict[str, Any], base: dict[str, Any]) -> list[str]:
    cells = []
    for code, _, _ in LANGUAGES:
        bits, before = _bits(row, code), _bits(base, code)
        change = "" if row is base or bits is None or not before else _change(100 * (bits - before) / before)
        cells.append(figure(bits) + change)
        cells.append(figure(number(section(row.get(code)).get("perplexity")), 2))
    return cells


def _change(percent: float) -> str:
    kind = "flat" if abs(percent) < NOISE_PERCENT else "down" if percent < 0 else "up"
    return f'<span class="delta {kind}">{_signed(percent)}</span>'


def _change_chart(found: list[dict[str, Any]]) -> str:
    """Both languages on one axis, so that a small loss is not drawn as large as a great gain."""
    series = []
    for code, name, tone in LANGUAGES:
        base = _bits(found[0], code)
        if base:
            values = [(float(i), _bits(row, code)) for i, row in enumerate(found)]
            points = [(i, 100 * (bits - base) / base) for i, bits in values if bits is not None]
            series.append(Series(name, points, tone, dots=True))
    ticks = [(float(i), str(row.get("stage", "?"))[:24]) for i, row in enumerate(found)]
    label = "Percent change of bits per byte after each stage"
    return draw_wide(Chart(label, series, ticks=ticks, zero_line=True, y_format=_axis_percent))


def _axis_percent(value: float) -> str:
    return f"{value:+g}%".replace("-", "−") if value else "0"


def samples(run: RunFiles) -> str:
    """Text the model generated, right to left; prompts are shown quietly above it."""
    found = rows(run.results.get("samples"))
    if not found:
        return ""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        by_prompt.setdefault(str(item.get("prompt", "")), []).append(item)
    articles = []
    for prompt, answers in by_prompt.items():
        turns = [_turn("prompt", persian(prompt, "sample prompt"))]
        turns += [_turn(item.get("stage", ""), persian(item.get("text", ""), "sample")) for item in answers]
        articles.append(f'<article class="panel">{"".join(turns)}</article>')
    lead = "Greedy output on the recipe’s prompts, as it came: nothing chosen, nothing corrected."
    return block("samples", "What it writes", lead, f'<div class="samples">{"".join(articles)}</div>')


def _turn(label: object, shown: str) -> str:
    return f'<div class="turn"><h3>{text(label)}</h3>{shown}</div>'

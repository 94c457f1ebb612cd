"""What it cost: energy and CO2 by stage, node and part, power over time, and other runs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from persianmind.energy.records import Attempt, Sample
from persianmind.energy.show import kwh_text, mass_text
from persianmind.report.charts import Chart, Point, Series, draw_wide
from persianmind.report.html import GAP, bars, block, facts, panel, table, text
from persianmind.report.read import RunFiles

MAX_BARS = 16
TONES = ("t-spent", "t-en", "t-third", "t-fa", "t-soft")


def energy(run: RunFiles) -> str:
    """The whole account."""
    if not run.ledger.attempts:
        return ""
    summary = run.energy
    panels = [
        panel("The account", facts(_totals(summary)), wide=True),
        panel("Power over time, watts", power_chart(run), _POWER_NOTE, wide=True),
        panel("By stage", _stage_bars(summary)),
        panel("By part", _component_bars(summary), "Solid is measured, hatched is estimated."),
    ]
    if len(summary["by_node"]) > 1:
        panels.append(panel("By node", _node_bars(summary)))
    panels.append(panel("Where the numbers come from", _sources(summary), wide=True))
    panels.append(panel("Not counted", _items(summary["not_counted"])))
    remarks = summary["problems"] + summary["notes"]
    panels.append(panel("Remarks", _items(remarks) if remarks else "<p>Nothing is missing.</p>"))
    lead = "Electricity of the counted parts, times the PUE, times the intensity of the grid."
    grid = f'<div class="grid2">{"".join(panels)}</div>'
    return block("energy", "What it cost", lead, grid, _comparison(summary))


def _totals(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    spread, share, cost = summary["uncertainty"], summary["measured_ratio"], summary["cost"]
    yield "energy", text(kwh_text(summary["kwh"]))
    yield "between", text(f"{kwh_text(spread['low_kwh'])} and {kwh_text(spread['high_kwh'])}")
    yield "measured", GAP if share is None else text(f"{share:.0%}, the rest estimated")
    yield "CO₂eq", text(mass_text(summary["co2_g"]))
    yield "PUE", text(f"{summary['pue']:g}")
    yield "grid intensity", _grid(summary)
    yield "done again after a crash", text(kwh_text(summary["wasted_kwh"]))
    per = summary["per_million_tokens"]
    if per:
        yield "a million tokens", text(f"{kwh_text(per['kwh'])}, {mass_text(per['co2_g'])}")
    characters = summary["per_million_characters"]
    if characters:
        yield "a million characters", text(f"{kwh_text(characters['kwh'])}, {mass_text(characters['co2_g'])}")
    yield "money", text(f"{cost['amount']:,.2f} {cost['currency']}") if cost else "no price set"
    if summary["embodied_g"] is not None:
        yield "making the hardware, not in the above", text(mass_text(summary["embodied_g"]))
    yield "starts of the run", text(summary["attempts"])


def _grid(summary: dict[str, Any]) -> str:
    source = summary["intensity"]
    if source is None:
        return "unknown"
    year = f", {source['year']}" if source["year"] else ""
    return text(f"{summary['intensity_g_per_kwh']:,.1f} g/kWh ({source['source']}{year})")


def _stage_bars(summary: dict[str, Any]) -> str:
    rows = [(name, kwh, kwh, kwh_text(kwh)) for name, kwh in summary["by_stage"].items()]
    return bars(rows)


def _node_bars(summary: dict[str, Any]) -> str:
    return bars([(name, kwh, kwh, kwh_text(kwh)) for name, kwh in summary["by_node"].items()][:MAX_BARS])


def _component_bars(summary: dict[str, Any]) -> str:
    rows = sorted(summary["by_component"].items(), key=lambda item: -item[1]["kwh"])
    return bars([(n, r["kwh"], r["measured_kwh"], kwh_text(r["kwh"])) for n, r in rows[:MAX_BARS]])


def _sources(summary: dict[str, Any]) -> str:
    body = [
        [text(name), text("; ".join(row["sources"]))] for name, row in sorted(summary["by_component"].items())
    ]
    return table(["part", "source"], body)


def _items(lines: list[str]) -> str:
    return f'<ul class="plain">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>'


def power_chart(run: RunFiles) -> str:
    """Watts over the hours of counting: the parts stacked for one node, a line a node for several."""
    nodes = run.ledger.nodes
    if len(nodes) == 1:
        samples = [s for attempt in run.ledger.attempts for s in attempt.samples]
        groups = _watts_by_group(samples)
        series = [Series(name, _stairs(samples, watts), tone)
                  for (name, watts), tone in zip(groups.items(), TONES, strict=False)]  # fmt: skip
        marks = [(hour, "started again") for hour in _restarts(run.ledger.attempts)][:6]
        return draw_wide(Chart("Watts over hours, by part", series, marks=marks, stacked=True))
    lines = []
    for number, (node, attempts) in enumerate(groupby(run.ledger.attempts, key=lambda a: a.node)):
        samples = [s for attempt in attempts for s in attempt.samples]
        watts = [s.joules / s.seconds for s in samples]
        lines.append(Series(node, _stairs(samples, watts), TONES[number % len(TONES)]))
    return draw_wide(Chart("Watts over hours, by node", lines, from_zero=True))


def _watts_by_group(samples: list[Sample]) -> dict[str, list[float]]:
    """GPUs together, then CPU, memory and whatever else there is; the same length for each."""
    names = {_group(part.component) for s in samples for part in s.parts}
    ordered = sorted(names, key=lambda name: (name != "GPUs", name != "CPU", name))
    table_: dict[str, list[float]] = {name: [0.0] * len(samples) for name in ordered}
    for index, sample in enumerate(samples):
        for part in sample.parts:
            table_[_group(part.component)][index] += part.joules / sample.seconds
    return table_


def _group(component: str) -> str:
    if component.startswith("gpu"):
        return "GPUs"
    return {"cpu": "CPU", "ram": "memory"}.get(component, component)


def _stairs(samples: list[Sample], watts: list[float], limit: int = 240) -> list[Point]:
    """Two points a piece (power is a mean over an interval); long runs are averaged into `limit` pieces."""
    size = max(1, -(-len(samples) // limit))
    points: list[Point] = []
    hours = 0.0
    for start in range(0, len(samples), size):
        seconds = [s.seconds for s in samples[start : start + size]]
        joules = sum(w * t for w, t in zip(watts[start : start + size], seconds, strict=True))
        mean = joules / sum(seconds)
        points += [(hours, mean), (hours + sum(seconds) / 3600, mean)]
        hours += sum(seconds) / 3600
    return points


def _restarts(attempts: list[Attempt]) -> list[float]:
    hours, found = 0.0, []
    for attempt in attempts[:-1]:
        hours += sum(s.seconds for s in attempt.samples) / 3600
        found.append(hours)
    return found


_POWER_NOTE = "Over the hours of counting; the time between a stop and the next start is left out."


def _comparison(summary: dict[str, Any]) -> str:
    header = ["run", "published CO₂eq", "GPU hours", "GPU energy", "GPUs alone, our PUE and grid", "source"]
    body = [
        [
            text(row["name"]),
            text(mass_text(row["published_co2_g"])),
            text(f"{row['gpu_hours']:,.1f}" if row["gpu_hours"] < 100 else f"{row['gpu_hours']:,.0f}"),
            text(kwh_text(row["gpu_kwh"])),
            text(mass_text(row["recomputed_co2_g"])),
            text(". ".join(filter(None, (row["source"], row["remark"])))),
        ]
        for row in summary["comparison"]
    ]
    note = (
        "Published figures are as their sources give them. The fifth column puts all runs on one footing: "
        "GPU energy alone (GPU hours times the source’s power) times the PUE and grid intensity of this run."
    )
    return panel("Beside published runs", table(header, body), note)

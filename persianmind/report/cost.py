"""What it cost: energy and CO2 by stage, node and part, power over time, and other runs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from persianmind.energy.co2.intensity import UNSTATED
from persianmind.energy.ledger import Attempt
from persianmind.energy.show import (
    GPU_HEADER,
    co2_text,
    energy_text,
    everyday_text,
    gpu_row,
    kwh_text,
    mass_text,
)
from persianmind.report.charts import Chart, Drawing, Series, draw_wide
from persianmind.report.languages import target
from persianmind.report.read import RunFiles
from persianmind.report.series import Point
from persianmind.report.values import number, quotient
from persianmind.report.view import Bar, Cell, Facts, Table, bars, figure, plain
from persianmind.run.energy_records import EnergySample
from persianmind.run.scores import scores_by_stage

MAX_BARS, MAX_RESTARTS, MAX_STAIRS = 16, 6, 240
TONES = ("t-spent", "t-english", "t-third", "t-target", "t-soft")


@dataclass(frozen=True, slots=True)
class EnergyView:
    """The account: totals, power over time, breakdowns, GPUs, sources, what is missing, other runs.

    nodes: empty where there was only one. gpus: None where none was watched. grids: None where no other is
    known. comparison: None where no published run is of its scale.
    """

    totals: Facts
    power: list[Drawing]
    stages: list[Bar]
    parts: list[Bar]
    nodes: list[Bar]
    gpus: Table | None
    sources: Table
    grids: Table | None
    not_counted: list[str]
    remarks: list[str]
    comparison: Table | None


def energy(run: RunFiles) -> EnergyView | None:
    """The whole account."""
    account = run.account
    if not run.ledger.attempts or account is None:
        return None
    return EnergyView(
        totals=list(_totals(run, account)),
        power=power_chart(run),
        stages=_whole_bars(account["by_stage"]),
        parts=_part_bars(account["by_component"]),
        nodes=_whole_bars(account["by_node"])[:MAX_BARS] if len(account["by_node"]) > 1 else [],
        gpus=_gpus(account["gpus"]),
        sources=_sources(account["by_component"]),
        grids=_grids(account["grids"]),
        not_counted=account["not_counted"],
        remarks=account["problems"] + account["notes"],
        comparison=_comparison(account["comparison"]) if account["comparison"] else None,
    )


def _totals(run: RunFiles, account: dict[str, Any]) -> Iterator[tuple[str, Cell]]:
    cost = account["cost"]
    yield "energy", plain(energy_text(account))
    yield "the range", plain(account["uncertainty"]["basis"] or "–")
    yield "as much as", plain(everyday_text(account["kwh"]))
    if (bought := _bought(run, account["kwh"])) is not None:
        yield bought
    yield "CO₂eq", plain(co2_text(account))
    yield "grid intensity", plain(_grid(account))
    yield "PUE", plain(f"{account['pue']:g}")
    yield "done again after a crash", plain(kwh_text(account["wasted_kwh"]))
    for unit in ("tokens", "characters"):
        if per := account[f"per_million_{unit}"]:
            yield f"per million {unit}", plain(kwh_text(per["kwh"]))
    yield "money", plain(f"{cost['amount']:,.2f} {cost['currency']}" if cost else "no price set")
    if account["embodied_g"] is not None:
        yield "making the hardware, not in the above", plain(mass_text(account["embodied_g"]))
    yield "starts of the run", plain(account["attempts"])


def _bought(run: RunFiles, kwh: float) -> tuple[str, Cell] | None:
    """Energy by what the target language gained from the base to the last score."""
    language = target(run)
    stages = scores_by_stage(run.results).values()
    scores = [found[language.code] for found in stages if language.code in found]
    gained = scores[0].bits_per_byte - scores[-1].bits_per_byte if len(scores) > 1 else 0.0
    each = quotient(kwh, gained, 0.1) if gained > 0 else None
    name = f"for each tenth of a bit per byte gained in {language.name}"
    return None if each is None else (name, plain(kwh_text(each)))


GRIDS = {
    "country": "the same country",
    "cleanest": "cleanest country",
    "dirtiest": "dirtiest country",
}


def _grids(grids: list[dict[str, Any]]) -> Table | None:
    body = [
        [
            Cell(GRIDS[grid["role"]], origin=f"{grid['country']}, {grid['year']}"),
            figure(number(grid["g_per_kwh"]), 0),
            plain(mass_text(grid["co2_g"])),
        ]
        for grid in grids
    ]
    return Table(["grid", "g/kWh", "CO₂eq"], body) if body else None


def _grid(account: dict[str, Any]) -> str:
    source = account["intensity"]
    if source is None:
        return f"not stated; {UNSTATED}"
    year = f", {source['year']}" if source["year"] else ""
    return f"{account['intensity_g_per_kwh']:,.1f} g/kWh ({source['source']}{year})"


def _whole_bars(kwh_by_name: dict[str, float]) -> list[Bar]:
    return bars([(name, kwh, kwh, kwh_text(kwh)) for name, kwh in kwh_by_name.items()])


def _part_bars(by_component: dict[str, dict[str, Any]]) -> list[Bar]:
    parts = sorted(by_component.items(), key=lambda item: -item[1]["kwh"])[:MAX_BARS]
    return bars([(name, part["kwh"], part["measured_kwh"], kwh_text(part["kwh"])) for name, part in parts])


def _sources(by_component: dict[str, dict[str, Any]]) -> Table:
    body = [[plain(name), plain("; ".join(part["sources"]))] for name, part in sorted(by_component.items())]
    return Table(["part", "source"], body, numeric=False)


def _gpus(gpus: list[dict[str, Any]]) -> Table | None:
    body = [[plain(text) for text in gpu_row(gpu)] for gpu in gpus]
    return Table(GPU_HEADER, body, numeric=False) if gpus else None


def power_chart(run: RunFiles) -> list[Drawing]:
    """Watts over the hours of counting: the parts stacked for one node, a line per node for several."""
    attempts = run.ledger.attempts
    if len(run.ledger.nodes) == 1:
        samples = [sample for attempt in attempts for sample in attempt.samples]
        watts_by_group = _watts_by_group(samples)
        series = [
            Series(name, _stairs(samples, watts), tone)
            for (name, watts), tone in zip(watts_by_group.items(), TONES, strict=False)
        ]
        marks = [(hour, "started again") for hour in _restarts(attempts)][:MAX_RESTARTS]
        return draw_wide(Chart("Watts over hours, by part", series, marks=marks, stacked=True))
    lines = []
    for index, (node, group) in enumerate(groupby(attempts, key=lambda attempt: attempt.node)):
        samples = [sample for attempt in group for sample in attempt.samples]
        watts = [sample.joules / sample.seconds for sample in samples]
        lines.append(Series(node, _stairs(samples, watts), TONES[index % len(TONES)]))
    return draw_wide(Chart("Watts over hours, by node", lines, from_zero=True))


def _watts_by_group(samples: list[EnergySample]) -> dict[str, list[float]]:
    """GPUs together, then CPU, memory and whatever else there is; the same length for each."""
    names = {_group(reading.component) for s in samples for reading in s.readings}
    ordered = sorted(names, key=lambda name: (name != "GPUs", name != "CPU", name))
    watts: dict[str, list[float]] = {name: [0.0] * len(samples) for name in ordered}
    for index, sample in enumerate(samples):
        for reading in sample.readings:
            watts[_group(reading.component)][index] += reading.joules / sample.seconds
    return watts


def _group(component: str) -> str:
    if component.startswith("gpu"):
        return "GPUs"
    return {"cpu": "CPU", "ram": "memory"}.get(component, component)


def _stairs(samples: list[EnergySample], watts: list[float]) -> list[Point]:
    """Two points per piece, as power is a mean over an interval; a long run is averaged into fewer pieces."""
    size = max(1, -(-len(samples) // MAX_STAIRS))
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


COMPARISON_HEADER = (
    "run", "published CO₂eq", "GPU hours", "GPU energy", "GPUs alone, our PUE and grid", "source"
)  # fmt: skip


def _comparison(runs: list[dict[str, Any]]) -> Table:
    body = [
        [
            plain(run["name"]),
            plain(mass_text(run["published_co2_g"])),
            plain(f"{run['gpu_hours']:,.1f}" if run["gpu_hours"] < 100 else f"{run['gpu_hours']:,.0f}"),
            plain(kwh_text(run["gpu_kwh"])),
            plain(mass_text(run["recomputed_co2_g"])),
            plain(". ".join(filter(None, (run["source"], run["remark"])))),
        ]
        for run in runs
    ]
    return Table(COMPARISON_HEADER, body, numeric=False)

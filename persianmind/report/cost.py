"""What it cost: energy and CO2 by stage, node and part, power over time, and other runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from persianmind.energy.co2.intensity import UNSTATED
from persianmind.energy.ledger import Attempt
from persianmind.energy.meter.hardware import JOULES_PER_KWH, MEASURED
from persianmind.energy.show import (
    GPU_HEADER,
    co2_text,
    energy_text,
    everyday_text,
    gpu_row,
    kwh_text,
    mass_text,
)
from persianmind.report.drawing import Drawing
from persianmind.report.faults import run_starts
from persianmind.report.gains import gains
from persianmind.report.neighbours import earlier_runs
from persianmind.report.power import power_chart
from persianmind.report.read import RunFiles
from persianmind.report.values import number, quotient
from persianmind.report.view import Bar, Cell, Facts, Table, bars, figure, plain
from persianmind.run.energy_records import EnergySample

MAX_BARS = 16


@dataclass(frozen=True, slots=True)
class EnergyView:
    """The account: totals, power over time, breakdowns, GPUs, sources, what is missing, other runs.

    nodes: empty where there was only one. gpus: None where none was watched. grids: None where no other is
    known. comparison: None where no published run is of its scale. earlier: runs in the folder beside it.
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
    earlier: Table | None


def energy(run: RunFiles) -> EnergyView | None:
    """The whole account."""
    account = run.account
    if not run.ledger.attempts or account is None:
        return None
    return EnergyView(
        totals=list(_totals(run, account)),
        power=power_chart(run),
        stages=_bars_by(run, lambda _, sample: sample.label),
        parts=_part_bars(account["by_component"]),
        nodes=_bars_by(run, lambda attempt, _: attempt.node)[:MAX_BARS] if len(run.ledger.nodes) > 1 else [],
        gpus=_gpus(account["gpus"]),
        sources=_sources(account["by_component"]),
        grids=_grids(account["grids"]),
        not_counted=account["not_counted"],
        remarks=[*_unsaid(account), *account["problems"], *account["notes"]],
        comparison=_comparison(account["comparison"]) if account["comparison"] else None,
        earlier=earlier_runs(run),
    )


def _unsaid(account: dict[str, Any]) -> list[str]:
    """Parts in no figure that no line of the meter names, so that a page without remarks misses nothing."""
    named = " ".join(account["problems"])
    return [
        f"{part}: what it used is unknown, and in no figure here"
        for part in account["unknown"]
        if f"{part}: " not in named
    ]


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
    yield "starts of the run", plain(run_starts(run))


def _bought(run: RunFiles, kwh: float) -> tuple[str, Cell] | None:
    """Energy by what the target language gained from the base to the last score."""
    found = next((gain for gain in gains(run) if gain.language.role == "target"), None)
    gained = 0.0 if found is None else found.base.bits_per_byte - found.last.bits_per_byte
    each = quotient(kwh, gained, 0.1) if gained > 0 else None
    if found is None or each is None:
        return None
    return f"for each tenth of a bit per byte gained in {found.language.name}", plain(kwh_text(each))


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


def _bars_by(run: RunFiles, name_of: Callable[[Attempt, EnergySample], str]) -> list[Bar]:
    """Energy by a name of each sample, the measured part of it solid."""
    used: dict[str, float] = {}
    measured: dict[str, float] = {}
    for attempt in run.ledger.attempts:
        for sample in attempt.samples:
            name = name_of(attempt, sample)
            counted = sum(reading.joules for reading in sample.readings if reading.kind == MEASURED)
            used[name] = used.get(name, 0.0) + sample.joules / JOULES_PER_KWH
            measured[name] = measured.get(name, 0.0) + counted / JOULES_PER_KWH
    return bars([(name, kwh, measured[name], kwh_text(kwh)) for name, kwh in used.items()])


def _part_bars(by_component: dict[str, dict[str, Any]]) -> list[Bar]:
    parts = sorted(by_component.items(), key=lambda item: -item[1]["kwh"])[:MAX_BARS]
    return bars([(name, part["kwh"], part["measured_kwh"], kwh_text(part["kwh"])) for name, part in parts])


def _sources(by_component: dict[str, dict[str, Any]]) -> Table:
    body = [[plain(name), plain("; ".join(part["sources"]))] for name, part in sorted(by_component.items())]
    return Table(["part", "source"], body, numeric=False)


def _gpus(gpus: list[dict[str, Any]]) -> Table | None:
    body = [[plain(text) for text in gpu_row(gpu)] for gpu in gpus]
    return Table(GPU_HEADER, body, numeric=False) if gpus else None


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

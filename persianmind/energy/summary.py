"""The account of a run: joules of all nodes, attempts and stages, what they emit, and what is not in it.

Sums are over `seconds` of monotonic time and joules as read; the wall clock decides only which hour of a
time-of-day curve applies. Measured and estimated joules are kept apart up to the last line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import EnergyError
from persianmind.energy.co2.intensity import Intensity, resolve_intensity
from persianmind.energy.co2.published import PUBLISHED, co2_g, normalised_to_pue_and_grid
from persianmind.energy.gpus import gpu_summary
from persianmind.energy.ledger import Ledger
from persianmind.energy.meter.hardware import JOULES_PER_KWH, MEASURED
from persianmind.energy.waste import lost_ratios
from persianmind.recipe import Energy
from persianmind.run.energy_records import EnergySample

# Stated assumptions, not statistics: NVML documents +-5% for board power readings; a TDP or memory model can
# easily be off by half.
MEASURED_ERROR = 0.05
ESTIMATED_ERROR = 0.50

NOT_COUNTED = (
    "losses of the power supplies, fans, disks, mainboard and network gear",
    "cooling and the building, except as the PUE stands for them",
    "making and shipping the hardware, unless energy.embodied_g_per_hour is set",
    "training of the base model, and runs that were tried before this one",
)


def summarise(
    ledger: Ledger,
    options: Energy,
    *,
    tokens: int | None = None,
    characters: int | None = None,
    folder: Path | None = None,
    comparison: bool = True,
) -> dict[str, Any]:
    """The account as one JSON object.

    `kwh` is what the counted parts of the machines used; `co2_g` is kwh x PUE x intensity and is None, with
    the reason under `problems`, when no intensity is known. `tokens` and `characters` are what the run
    trained on; `folder` is where a relative curve file is looked up.
    """
    problems = [*ledger.damage, *ledger.problems]
    intensity = _intensity(options, folder, problems)
    samples = list(ledger.samples)
    total_j = sum(sample.joules for sample in samples)
    measured_j = sum(reading.joules for s in samples for reading in s.readings if reading.kind == MEASURED)
    wasted_j = _wasted_j(ledger)
    kwh = total_j / JOULES_PER_KWH
    grams = _co2(samples, options.pue, intensity)
    hours = sum(sample.seconds for sample in samples) / 3600
    _note_unfinished(ledger, problems)
    summary: dict[str, Any] = {
        "kwh": kwh,
        "co2_g": grams,
        "pue": options.pue,
        "intensity_g_per_kwh": None if intensity is None else _effective(intensity, grams, kwh, options.pue),
        "intensity": None
        if intensity is None
        else {"source": intensity.source, "year": intensity.year, "by_hour": intensity.hourly is not None},
        "measured_ratio": measured_j / total_j if total_j else None,
        "wasted_kwh": wasted_j / JOULES_PER_KWH,
        "facility_kwh": kwh * options.pue,
        "node_hours": hours,
        "attempts": len(ledger.attempts),
        "cost": _cost(kwh, options),
        "embodied_g": None if options.embodied_g_per_hour is None else hours * options.embodied_g_per_hour,
        "per_million_tokens": _per_million(kwh, grams, tokens),
        "per_million_characters": _per_million(kwh, grams, characters),
        "uncertainty": _uncertainty(measured_j, total_j),
        "by_stage": _grouped((s.label, s.joules) for s in samples),
        "by_node": _grouped((a.node, s.joules) for a in ledger.attempts for s in a.samples),
        "by_component": _by_component(samples),
        "gpus": gpu_summary(ledger),
        "not_counted": list(NOT_COUNTED),
        "problems": problems,
        "notes": list(ledger.notes),
    }
    if comparison:
        grid = summary["intensity_g_per_kwh"]
        published = [normalised_to_pue_and_grid(run, options.pue, grid) for run in PUBLISHED]
        summary["comparison"] = [_this_run_gpus(samples, grams, options.pue, grid), *published]
    return summary


def _intensity(options: Energy, folder: Path | None, problems: list[str]) -> Intensity | None:
    try:
        return resolve_intensity(options, folder)
    except EnergyError as error:
        problems.append(str(error))
        return None


def _co2(samples: Sequence[EnergySample], pue: float, intensity: Intensity | None) -> float | None:
    if intensity is None:
        return None
    return sum(co2_g(s.joules / JOULES_PER_KWH, pue, intensity.at(s.time)) for s in samples)


def _effective(intensity: Intensity, grams: float | None, kwh: float, pue: float) -> float:
    """With a time-of-day curve: the average weighted by this run's own use."""
    if intensity.hourly is None or not kwh or grams is None:
        return intensity.g_per_kwh
    return grams / (kwh * pue)


def _wasted_j(ledger: Ledger) -> float:
    lost = lost_ratios(ledger.attempts)
    return sum(
        sample.joules * lost.get((attempt.node, attempt.name, index), 0.0)
        for attempt in ledger.attempts
        for index, sample in enumerate(attempt.samples)
    )


def _cost(kwh: float, options: Energy) -> dict[str, Any] | None:
    if options.price_per_kwh is None:
        return None
    return {"amount": kwh * options.pue * options.price_per_kwh, "currency": options.currency}


def _per_million(kwh: float, grams: float | None, count: int | None) -> dict[str, Any] | None:
    if not count:
        return None
    millions = count / 1e6
    return {"count": count, "kwh": kwh / millions, "co2_g": None if grams is None else grams / millions}


def _uncertainty(measured_j: float, total_j: float) -> dict[str, Any]:
    estimated_j = total_j - measured_j
    spread_j = measured_j * MEASURED_ERROR + estimated_j * ESTIMATED_ERROR
    return {
        "low_kwh": (total_j - spread_j) / JOULES_PER_KWH,
        "high_kwh": (total_j + spread_j) / JOULES_PER_KWH,
        "basis": f"assumed: +-{MEASURED_ERROR:.0%} of measured, +-{ESTIMATED_ERROR:.0%} of estimated joules",
    }


def _grouped(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """kWh by name, in order of first appearance."""
    sums: dict[str, float] = {}
    for name, joules in pairs:
        sums[name] = sums.get(name, 0.0) + joules / JOULES_PER_KWH
    return sums


def _by_component(samples: Iterable[EnergySample]) -> dict[str, dict[str, Any]]:
    """kWh of each component over all nodes, the measured part of it, and the sources it came from."""
    table: dict[str, dict[str, Any]] = {}
    for sample in samples:
        for reading in sample.readings:
            row = table.setdefault(reading.component, {"kwh": 0.0, "measured_kwh": 0.0, "sources": []})
            row["kwh"] += reading.joules / JOULES_PER_KWH
            if reading.kind == MEASURED:
                row["measured_kwh"] += reading.joules / JOULES_PER_KWH
            if reading.source not in row["sources"]:
                row["sources"].append(reading.source)
    return table


def _this_run_gpus(
    samples: Sequence[EnergySample], grams: float | None, pue: float, grid: float | None
) -> dict[str, Any]:
    """This run as the published ones are given: GPUs alone."""
    gpus = [
        (reading.joules, s.seconds)
        for s in samples
        for reading in s.readings
        if reading.component.startswith("gpu")
    ]
    kwh = sum(joules for joules, _ in gpus) / JOULES_PER_KWH
    return {
        "name": "this run",
        "published_co2_g": grams,
        "gpu_hours": sum(seconds for _, seconds in gpus) / 3600,
        "gpu_kwh": kwh,
        "published_pue": pue,
        "published_intensity_g_per_kwh": grid,
        "recomputed_co2_g": None if grid is None else co2_g(kwh, pue, grid),
        "source": "this run's own ledger",
        "remark": "" if gpus else "no GPU was counted in this run",
    }


def _note_unfinished(ledger: Ledger, problems: list[str]) -> None:
    """A meter that never wrote its last line was killed, and up to one interval of it is missing, or its disk
    was full, and more is."""
    for attempt in ledger.attempts:
        later = any(o.node == attempt.node and o.number > attempt.number for o in ledger.attempts)
        if attempt.stopped is None and later:
            interval = "one interval" if attempt.interval_s is None else f"{attempt.interval_s:g} s"
            problems.append(
                f"{attempt.node}: the meter of the attempt of {attempt.started} was killed; up to {interval} "
                "of it is missing, or all that it counted while its disk was full"
            )

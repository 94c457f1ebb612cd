"""Grams of CO2 equivalent per kilowatt-hour: stated by the recipe, or codecarbon's table, named as such."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from persianmind.common.errors import EnergyError
from persianmind.recipe import Energy

UNSTATED = "for one figure set energy.country_iso, or energy.intensity_g_per_kwh with its intensity_source"


@dataclass(frozen=True)
class Intensity:
    """Grid intensity in g CO2eq per kWh, with its source; `hourly` are 24 values, one per UTC hour; `country`
    is the name of a table's country."""

    g_per_kwh: float
    source: str
    year: int | None = None
    hourly: tuple[float, ...] | None = None
    country: str = ""

    def at(self, time: str) -> float:
        """The intensity at an ISO time; the one value where there is no curve."""
        if self.hourly is None:
            return self.g_per_kwh
        return self.hourly[datetime.fromisoformat(time).astimezone(UTC).hour]


def resolve_intensity(options: Energy, folder: Path | None = None) -> Intensity | None:
    """The recipe's curve, else its value, else codecarbon's average for its country; None where it states
    none of them.

    `folder` is where a relative path of `intensity_curve_csv` is looked up.

    Raises:
        EnergyError: the country is not in codecarbon's table, or the curve file is unusable.
    """
    if options.intensity_curve_csv is not None:
        path = Path(options.intensity_curve_csv)
        return read_curve(path if path.is_absolute() or folder is None else folder / path, options)
    if options.intensity_g_per_kwh is not None:
        source = options.intensity_source or "the recipe, which names no source"
        return Intensity(options.intensity_g_per_kwh, source, options.intensity_year)
    return None if options.country_iso is None else country_average(options.country_iso)


def country_average(country_iso: str) -> Intensity:
    """codecarbon's yearly average of a country (its data: Our World in Data / Ember).

    Raises:
        EnergyError: unknown three-letter code.
    """
    row = _countries().get(country_iso)
    if row is None or row.get("carbon_intensity") is None:
        raise EnergyError(
            f"energy.country_iso={country_iso!r} is not in codecarbon's table, so CO2 cannot be computed; "
            "set energy.intensity_g_per_kwh (with its source and year), or a known ISO code like IRN"
        )
    return Intensity(
        float(row["carbon_intensity"]),
        f"codecarbon's table for {row['country_name']} (yearly average)",
        int(row["year"]) if "year" in row else None,
        country=str(row["country_name"]),
    )


def lowest_and_highest() -> tuple[Intensity, Intensity]:
    """The yearly averages of the countries with the cleanest and the dirtiest grid in codecarbon's table.

    Raises:
        EnergyError: codecarbon or its table is missing.
    """
    rows = _countries()
    stated = {iso: row["carbon_intensity"] for iso, row in rows.items() if row.get("carbon_intensity")}
    return country_average(min(stated, key=stated.__getitem__)), country_average(
        max(stated, key=stated.__getitem__)
    )


@cache
def _countries() -> dict[str, dict[str, Any]]:
    # The file is read where it lies: importing codecarbon for one number would take 0.3 s.
    spec = importlib.util.find_spec("codecarbon")
    if spec is None or not spec.submodule_search_locations:
        raise EnergyError(
            "codecarbon is not installed; set energy.intensity_g_per_kwh, or install codecarbon"
        )
    table = Path(spec.submodule_search_locations[0]) / "data" / "private_infra" / "global_energy_mix.json"
    if not table.is_file():
        raise EnergyError("this codecarbon has no country table; set energy.intensity_g_per_kwh")
    countries: dict[str, dict[str, Any]] = json.loads(table.read_text(encoding="utf-8"))
    return countries


def read_curve(path: Path, options: Energy) -> Intensity:
    """A day's curve: CSV with the columns `hour_utc` (0 to 23, each once) and `g_per_kwh`.

    Raises:
        EnergyError: the file is missing, has other columns, or does not hold the 24 hours once each.
    """
    advice = "it needs the columns hour_utc,g_per_kwh and one row for each hour from 0 to 23"
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        by_hour = {int(row["hour_utc"]): float(row["g_per_kwh"]) for row in rows}
    except OSError as error:
        raise EnergyError(f"energy.intensity_curve_csv: cannot read {path} ({error.strerror})") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise EnergyError(f"energy.intensity_curve_csv: {path} is not understood; {advice}") from None
    if len(rows) != 24 or sorted(by_hour) != list(range(24)) or not all(v >= 0 for v in by_hour.values()):
        raise EnergyError(f"energy.intensity_curve_csv: {path} is incomplete; {advice}")
    hourly = tuple(by_hour[hour] for hour in range(24))
    source = options.intensity_source or f"time-of-day curve {path.name}"
    return Intensity(sum(hourly) / 24, source, options.intensity_year, hourly)

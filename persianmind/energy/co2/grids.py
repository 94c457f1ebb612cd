"""What the same energy emits on other grids than the one stated, each with its source."""

from __future__ import annotations

from typing import Any

from persianmind.common.errors import EnergyError
from persianmind.energy.co2.intensity import Intensity, country_average, lowest_and_highest
from persianmind.energy.co2.published import co2_g
from persianmind.recipe import Energy


def other_grids(kwh: float, options: Energy, stated: Intensity | None) -> list[dict[str, Any]]:
    """The run on other grids: {role, country, g_per_kwh, source, year, co2_g}, as JSON.

    role: "country" is codecarbon's figure for the country of a recipe that states an intensity of its own;
    "cleanest" and "dirtiest" are those of all countries. [] where codecarbon's table is not to be had.
    """
    try:
        cleanest, dirtiest = lowest_and_highest()
        found = [("cleanest", cleanest), ("dirtiest", dirtiest)]
        if options.country_iso is not None and stated is not None:
            country = country_average(options.country_iso)
            if country.g_per_kwh != stated.g_per_kwh:
                found.insert(0, ("country", country))
    except EnergyError:
        return []
    return [
        {
            "role": role,
            "country": grid.country,
            "g_per_kwh": grid.g_per_kwh,
            "source": grid.source,
            "year": grid.year,
            "co2_g": co2_g(kwh, options.pue, grid.g_per_kwh),
        }
        for role, grid in found
    ]


def span_g(grids: list[dict[str, Any]]) -> tuple[float, float] | None:
    """Grams between the cleanest and the dirtiest grid of all countries; None where they are not known."""
    by_role = {grid["role"]: grid["co2_g"] for grid in grids}
    return (by_role["cleanest"], by_role["dirtiest"]) if "cleanest" in by_role else None

"""The energy account."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from persianmind.recipe.section import Positive, Section


class Energy(Section):
    """The account. Where neither the country nor the intensity of the grid is stated, CO2 is a span over all
    countries; `pue` 1.0 counts nothing of the building."""

    enabled: bool = True
    interval_s: Positive = 5.0
    country_iso: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    intensity_g_per_kwh: Positive | None = None
    intensity_source: str = ""
    intensity_year: int | None = None
    intensity_curve_csv: str | None = None
    pue: Annotated[float, Field(ge=1.0)] = 1.0
    cpu_tdp_w: Positive | None = None
    price_per_kwh: Annotated[float, Field(ge=0.0)] | None = None
    currency: str = "USD"
    embodied_g_per_hour: Annotated[float, Field(ge=0.0)] | None = None
    budget_kwh: Positive | None = None
    budget_kg_co2: Positive | None = None

"""The account as the Hugging Face Hub's model card metadata wants it."""

from __future__ import annotations

from typing import Any


def co2_eq_emissions(summary: dict[str, Any], *, location: str, hardware: str) -> dict[str, Any] | None:
    """The `co2_eq_emissions` block of a model card, or None where no grid is known.

    Keys and unit (grams) are the Hub's: huggingface.co/docs/hub/model-cards-co2. `summary` is what
    `summary.summarise` returned.
    """
    grams = summary["co2_g"]
    if grams is None:
        return None
    low_g, high_g = emission_range_g(summary)
    ratio = summary["measured_ratio"] or 0.0
    intensity = summary["intensity"]
    source = (
        f"codecarbon readings summed by PersianMind: {summary['kwh']:.4g} kWh ({ratio:.0%} measured, rest "
        f"estimated) x PUE {summary['pue']:g} x {summary['intensity_g_per_kwh']:.4g} g/kWh "
        f"({intensity['source']}); {low_g:.4g} to {high_g:.4g} g ({summary['uncertainty']['basis']})"
    )
    return {
        "emissions": round(grams, 3),
        "source": source,
        "training_type": "fine-tuning",
        "geographical_location": location,
        "hardware_used": hardware,
    }


def emission_range_g(summary: dict[str, Any]) -> tuple[float, float]:
    """Lowest and highest grams of CO2eq by the account's own uncertainty of the energy; PUE and grid
    intensity count as exact."""
    per_kwh_g = summary["pue"] * summary["intensity_g_per_kwh"]
    uncertainty = summary["uncertainty"]
    return uncertainty["low_kwh"] * per_kwh_g, uncertainty["high_kwh"] * per_kwh_g

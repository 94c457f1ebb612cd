"""The table a run ends with."""

from __future__ import annotations

from typing import Any


def summary_lines(results: dict[str, Any]) -> list[str]:
    """The table a run ends with: bits per byte and perplexity of every stage, energy and CO2."""
    rows = results["perplexity"]
    languages = [key for key in rows[0] if key != "stage"] if rows else []
    header = f"{'stage':<14}" + "".join(f"{name + ' bits/byte':>16}{name + ' ppl':>12}" for name in languages)
    lines = [header]
    for row in rows:
        cells = (f"{row[n]['bits_per_byte']:>16.4f}{row[n]['perplexity']:>12.2f}" for n in languages)
        lines.append(f"{row['stage']:<14}" + "".join(cells))
    energy = results.get("energy") or {}
    if energy.get("kwh") is not None:
        grams = energy.get("co2_g")
        co2 = "CO2 unknown" if grams is None else f"{grams:.3g} g CO2eq"
        lines.append(f"energy: {energy['kwh']:.4g} kWh, {co2}")
    return lines

"""The account as the Hugging Face Hub's model card metadata wants it."""

from __future__ import annotations

from typing import Any


def co2_eq_emissions(summary: dict[str, Any], *, location: str, hardware: str) -> dict[str, Any] | None:
    """The `co2_eq_emissions` block of a model card, or None when the emissions are unknown.

    Keys and unit (grams) are the Hub's: huggingface.co/docs/hub/model-cards-co2. `summary` is what
    `ledger.summarise` returned.
    """
    grams = summary["co2_g"]
    if grams is None:
        return None
    share = summary["measured_ratio"] or 0.0
    intensity = summary["intensity"]
    source = (
        f"codecarbon readings summed by PersianMind: {summary['kwh']:.4g} kWh ({share:.0%} measured, rest "
        f"estimated) x PUE {summary['pue']:g} x {summary['intensity_g_per_kwh']:.4g} g/kWh "
        f"({intensity['source']})"
    )
    return {
        "emissions": round(grams, 3),
        "source": source,
        "training_type": "fine-tuning",
        "geographical_location": location,
        "hardware_used": hardware,
    }


def hardware_of(hosts: list[dict[str, Any]]) -> str:
    """GPUs of all nodes, or their CPUs where there is no GPU, such as "2 x RTX 3090 + 1 x A100"."""
    names: list[str] = []
    for host in hosts:
        name = (
            host.get("gpu_model")
            or f"{host.get('cpu_model') or 'unknown CPU'} ({host.get('cpu_count')} threads)"
        )
        names.append(str(name))
    return " + ".join(names) or "unknown"

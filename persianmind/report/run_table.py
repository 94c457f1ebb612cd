"""Runs beside one another: what was gained, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persianmind.common.units import HOUR_S, duration_text
from persianmind.energy.show import kwh_text
from persianmind.report.status import RunStatus

TENTH_BIT = 0.1


def compared(runs: Sequence[RunStatus]) -> list[dict[str, Any]]:
    """An object per run. kwh_per_tenth_bit: what a gain of 0.1 bits per byte took in each language; None
    where nothing was gained."""
    return [_as_json(run) for run in runs]


def compare_rows(runs: Sequence[RunStatus]) -> list[list[str]]:
    """The same for people: a line per fact, a column per run."""
    languages = list(dict.fromkeys(code for run in runs for code in run.changes))
    facts: list[tuple[str, list[str]]] = [
        ("state", [run.state.value for run in runs]),
        ("tokens", [f"{run.tokens:,}" for run in runs]),
        ("training time", [duration_text(run.trained_s) for run in runs]),
        ("energy", [kwh_text(run.kwh) for run in runs]),
    ]
    for code in languages:
        facts.append((f"{code} bits/byte", [_change_text(run, code) for run in runs]))
        facts.append((f"{code}: energy per 0.1 gained", [_price_text(run, code) for run in runs]))
    return [[name, *values] for name, values in facts]


def _as_json(run: RunStatus) -> dict[str, Any]:
    scores = {
        code: {"base": one.base, "last": one.last, "gained": one.gained} for code, one in run.changes.items()
    }
    return {
        "run": str(run.folder),
        "state": run.state.value,
        "tokens": run.tokens,
        "training_hours": run.trained_s / HOUR_S,
        "kwh": run.kwh,
        "bits_per_byte": scores,
        "kwh_per_tenth_bit": {code: _price_kwh(run, code) for code in run.changes},
    }


def _price_kwh(run: RunStatus, code: str) -> float | None:
    gained = run.changes[code].gained if code in run.changes else None
    return None if gained is None or gained <= 0 else run.kwh * TENTH_BIT / gained


def _price_text(run: RunStatus, code: str) -> str:
    price = _price_kwh(run, code)
    return "nothing gained" if price is None else kwh_text(price)


def _change_text(run: RunStatus, code: str) -> str:
    if code not in run.changes:
        return "-"
    change = run.changes[code]
    return f"{change.last:.4f}" if change.base is None else f"{change.base:.4f} to {change.last:.4f}"

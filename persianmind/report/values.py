"""Values of files that may hold anything: what is not of the expected kind counts as absent."""

from __future__ import annotations

import math
from typing import Any


def mappings(value: object) -> list[dict[str, Any]]:
    """The mappings of a list; [] for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def section(value: object) -> dict[str, Any]:
    """A mapping, or {} for anything else."""
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """A finite number, or None for anything else: booleans, and integers that no float can hold, too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def quotient(part: float | None, whole: float | None, factor: float = 1.0) -> float | None:
    """factor * part / whole; None where a side is missing, `whole` is 0, or the result is not finite."""
    if part is None or not whole:
        return None
    return number(factor * (part / whole))


def scalar_text(value: object) -> str:
    """A string, number, boolean or null as text; a dash for anything else that YAML can hold."""
    return str(value) if value is None or isinstance(value, str | int | float) else "–"

"""Numbers of a curve made fit for a chart: axis steps and their text, and buckets of a long curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MAX_POINTS = 120
SMALLEST_SPAN = 1e-200  # of an axis: below, its steps would be 0

Point = tuple[float, float]


def short(value: float) -> str:
    """An axis number in few characters."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    if size < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` steps apart."""
    if not high - low > SMALLEST_SPAN:
        span = abs(low) * 0.1
        span = span if span > SMALLEST_SPAN else 1.0
        low, high = low - span / 2, high + span / 2
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Neighbouring points of a curve. x: of the middle; y: their mean; low, high: the least and the most of
    them, by which a single spike is seen."""

    x: float
    y: float
    low: float
    high: float


def buckets(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Bucket]:
    """At most `limit` buckets of about as many points each; a short curve has one for each point."""
    count = min(limit, len(points))
    bounds = [len(points) * index // count for index in range(count + 1)] if count else []
    return [_bucket(points[start:end]) for start, end in pairwise(bounds)]


def _bucket(points: Sequence[Point]) -> Bucket:
    ys = [y for _, y in points]
    mean = sum(ys) / len(ys)
    return Bucket((points[0][0] + points[-1][0]) / 2, min(max(mean, min(ys)), max(ys)), min(ys), max(ys))


def duration_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time of this length is told, and its seconds."""
    for name, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return name, size
    return "seconds", 1.0

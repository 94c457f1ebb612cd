"""Numbers of a curve made fit for a chart: axis steps and their text, fewer points, a smoothed line."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_POINTS = 300
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


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` points, each the mean of a run of neighbours: a long run stays a small page."""
    if len(points) <= limit:
        return list(points)
    size = len(points) / limit
    groups = [points[int(i * size) : int((i + 1) * size)] for i in range(limit)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups if g]


def smooth(points: Sequence[Point], ratio: float = 0.04) -> list[Point]:
    """An exponential moving average over about `ratio` of the points, for reading a noisy curve."""
    weight = 2.0 / (max(2.0, len(points) * ratio) + 1.0)
    result: list[Point] = []
    for x, y in points:
        result.append((x, y if not result else result[-1][1] + weight * (y - result[-1][1])))
    return result

"""Line and area charts as inline SVG: pure functions from numbers to text, no script, no outside font."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from persianmind.report.html import text

NARROW, WIDE, HEIGHT = 480.0, 980.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 20.0, 30.0
MAX_POINTS = 300

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line. `colour` is a class of style.py; a `quiet` line is drawn faint, behind."""

    name: str
    points: Sequence[Point]
    colour: str
    quiet: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """What to draw. `marks` are vertical lines (x, label); `ticks` replaces the numbers on the x axis."""

    label: str
    series: Sequence[Series]
    x_name: str = ""
    marks: Sequence[tuple[float, str]] = ()
    ticks: Sequence[tuple[float, str]] = ()
    from_zero: bool = False
    stacked: bool = False
    width: float = NARROW
    zero_line: bool = False
    y_format: Callable[[float], str] = field(default=lambda value: short(value))


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
    if not high > low:
        span = abs(low) * 0.1 or 1.0
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


def smooth(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """An exponential moving average over about `share` of the points, for reading a noisy curve."""
    weight = 2.0 / (max(2.0, len(points) * share) + 1.0)
    result: list[Point] = []
    for x, y in points:
        result.append((x, y if not result else result[-1][1] + weight * (y - result[-1][1])))
    return result


@dataclass(frozen=True)
class Frame:
    """Data to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float = NARROW

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1.0) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)


def draw_wide(chart: Chart) -> str:
    """The chart over the whole width of the page, and again in a shape that a phone can show."""
    wide = draw(replace(chart, width=WIDE))
    return wide and f'<div class="on-wide">{wide}</div><div class="on-phone">{draw(chart)}</div>'


def draw(chart: Chart) -> str:
    """The chart as one <svg>; "" when there is nothing to draw."""
    series = [s for s in chart.series if s.points]
    if not series:
        return ""
    layers = _stack(series) if chart.stacked else [s.points for s in series]
    xs = [x for s in series for x, _ in s.points]
    ys = [y for layer in layers for _, y in layer] + ([0.0] if chart.from_zero or chart.stacked else [])
    y_ticks = nice_ticks(min(ys), max(ys))
    frame = Frame(min(xs), max(xs), y_ticks[0], y_ticks[-1], chart.width)
    parts = [_grid(frame, y_ticks, chart), _x_axis(frame, chart), _marks(frame, chart.marks)]
    if chart.stacked:
        floor = [(x, 0.0) for x, _ in series[0].points]
        for item, top in zip(series, layers, strict=True):
            outline = frame.path([*top, *reversed(floor)])
            parts.append(f'<path class="area {item.colour}" d="{outline}Z"/>')
            floor = list(top)
    else:
        parts.extend(_line(frame, item) for item in series)
    return (
        f'<svg viewBox="0 0 {chart.width:g} {HEIGHT:g}" role="img" aria-label="{text(chart.label)}">'
        f"{''.join(parts)}</svg>{_legend(chart.series)}"
    )


def _line(frame: Frame, item: Series) -> str:
    kind = f"line {item.colour}{' quiet' if item.quiet else ''}"
    line = f'<path class="{kind}" d="{frame.path(item.points)}"/>' if len(item.points) > 1 else ""
    if not item.dots and len(item.points) > 1:
        return line
    dots = "".join(
        f'<circle class="dot {item.colour}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4"/>'
        for x, y in item.points
    )
    return line + dots


def _stack(series: Sequence[Series]) -> list[list[Point]]:
    """Cumulative tops; the series share their x values."""
    tops: list[list[Point]] = []
    for item in series:
        below = [y for _, y in tops[-1]] if tops else [0.0] * len(item.points)
        tops.append([(x, y + base) for (x, y), base in zip(item.points, below, strict=True)])
    return tops


def _grid(frame: Frame, ticks: Sequence[float], chart: Chart) -> str:
    left, right = LEFT, frame.width - RIGHT
    lines = []
    for value in ticks:
        y = frame.y(value)
        kind = "grid zero" if chart.zero_line and abs(value) < 1e-12 else "grid"
        lines.append(f'<line class="{kind}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shown = text(chart.y_format(value))
        lines.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    return "".join(lines)


def _x_axis(frame: Frame, chart: Chart) -> str:
    ticks = list(chart.ticks)
    if not ticks:
        inside = [
            v
            for v in nice_ticks(frame.x_low, frame.x_high, 5 if chart.width == NARROW else 10)
            if frame.x_low <= v <= frame.x_high
        ]
        ticks = [(value, short(value)) for value in inside]
    base = HEIGHT - 12
    labels = []
    for value, label in ticks:
        x = frame.x(value)
        anchor = "end" if x > frame.width - 40 else "start" if x < LEFT + 20 else "middle"
        labels.append(f'<text x="{x:.1f}" y="{base}" text-anchor="{anchor}">{text(label)}</text>')
    return "".join(labels)


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> str:
    parts = []
    for value, label in marks:
        x = frame.x(value)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="mark-label" x="{x + 4:.1f}" y="{TOP - 8}">{text(label)}</text>')
    return "".join(parts)


def _legend(series: Sequence[Series]) -> str:
    named = [item for item in series if item.name and item.points]
    if len(named) < 2:
        return ""
    keys = "".join(f'<span><i class="key {s.colour}{_faint(s)}"></i>{text(s.name)}</span>' for s in named)
    return f'<div class="legend">{keys}</div>'


def _faint(item: Series) -> str:
    return " quiet" if item.quiet else ""

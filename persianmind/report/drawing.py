"""A chart in pixels: plain data that templates/chart.html.j2 writes as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persianmind.report.series import Point
from persianmind.report.view import Table

NARROW, WIDE, HEIGHT = 480.0, 980.0, 262.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 48.0, 44.0


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line from (x1, y1) to (x2, y2); `kind` is its class."""

    kind: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Label:
    """Text at (x, y). anchor: start, middle or end of the text lies there."""

    text: str
    x: float
    y: float
    anchor: str = "start"
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """One series: an SVG path ("" for none) of class `kind`, and dots of class `dot_kind`."""

    kind: str
    path: str
    dot_kind: str = ""
    dots: Sequence[Point] = ()


@dataclass(frozen=True, slots=True)
class Hover:
    """A strip of the plot, from `x` and `width` wide, that shows `text` under the pointer."""

    x: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart in pixels. label: its alternative text. legend: series as (class of the key, name). table: its
    numbers."""

    name: str
    label: str
    width: float
    height: float
    lines: Sequence[Line]
    labels: Sequence[Label]
    traces: Sequence[Trace]
    legend: Sequence[tuple[str, str]]
    hovers: Sequence[Hover]
    table: Table


@dataclass(frozen=True)
class Frame:
    """Data to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float = NARROW

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1.0) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        """An SVG path through the points."""
        return "M" + "L".join(f"{self.x(x):.0f} {self.y(y):.1f}" for x, y in points)

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        """The points in pixels, rounded as everything drawn is."""
        return [(round(self.x(x), 1), round(self.y(y), 1)) for x, y in points]

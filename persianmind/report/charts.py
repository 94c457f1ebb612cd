"""Line and area charts: pure functions from numbers to the coordinates that templates/chart.html.j2 draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from persianmind.report.series import Point, nice_ticks, short

NARROW, WIDE, HEIGHT = 480.0, 980.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 20.0, 30.0
LARGEST = 1e100  # points beyond are not drawn: sums and differences of the others stay finite


@dataclass(frozen=True)
class Series:
    """A line. `colour` is a class of style.css; a `quiet` line is drawn faint, behind."""

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
    marks: Sequence[tuple[float, str]] = ()
    ticks: Sequence[tuple[float, str]] = ()
    from_zero: bool = False
    stacked: bool = False
    width: float = NARROW
    zero_line: bool = False
    y_format: Callable[[float], str] = short


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
class Drawing:
    """A chart in pixels; the legend names series as (class of the key, name)."""

    label: str
    width: float
    height: float
    lines: Sequence[Line]
    labels: Sequence[Label]
    traces: Sequence[Trace]
    legend: Sequence[tuple[str, str]]


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
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        """The points in pixels, rounded as everything drawn is."""
        return [(round(self.x(x), 1), round(self.y(y), 1)) for x, y in points]


def draw_wide(chart: Chart) -> list[Drawing]:
    """The chart over the whole width of the page, and again in a shape for phones; [] when it is empty."""
    drawn = [draw(replace(chart, width=WIDE)), draw(chart)]
    return [drawing for drawing in drawn if drawing is not None]


def draw(chart: Chart) -> Drawing | None:
    """The chart in pixels; None when there is nothing to draw."""
    series = _drawable(chart)
    if not series:
        return None
    layers = _stack(series) if chart.stacked else [s.points for s in series]
    xs = [x for s in series for x, _ in s.points]
    ys = [y for layer in layers for _, y in layer] + ([0.0] if chart.from_zero or chart.stacked else [])
    y_ticks = nice_ticks(min(ys), max(ys))
    frame = Frame(min(xs), max(xs), y_ticks[0], y_ticks[-1], chart.width)
    grid_lines, grid_labels = _grid(frame, y_ticks, chart)
    mark_lines, mark_labels = _marks(frame, chart.marks)
    return Drawing(
        label=chart.label,
        width=chart.width,
        height=HEIGHT,
        lines=[*grid_lines, *mark_lines],
        labels=[*grid_labels, *_x_axis(frame, chart), *mark_labels],
        traces=_areas(frame, series, layers) if chart.stacked else [_trace(frame, item) for item in series],
        legend=_legend(series),
    )


def _drawable(chart: Chart) -> list[Series]:
    """The series without points that are too large; those of a stack keep their x values in common."""
    lost = {x for s in chart.series for x, y in s.points if not _fits((x, y))}
    kept = [
        replace(s, points=[p for p in s.points if _fits(p) and not (chart.stacked and p[0] in lost)])
        for s in chart.series
    ]
    return [s for s in kept if s.points]


def _fits(point: Point) -> bool:
    return all(abs(value) <= LARGEST for value in point)


def _trace(frame: Frame, item: Series) -> Trace:
    path = frame.path(item.points) if len(item.points) > 1 else ""
    dots = frame.pixels(item.points) if item.dots or not path else []
    return Trace(f"line {item.colour}{_faint(item)}", path, f"dot {item.colour}", dots)


def _areas(frame: Frame, series: Sequence[Series], layers: Sequence[Sequence[Point]]) -> list[Trace]:
    """Each layer as an area down to the one below it."""
    traces = []
    floor: Sequence[Point] = [(x, 0.0) for x, _ in series[0].points]
    for item, top in zip(series, layers, strict=True):
        traces.append(Trace(f"area {item.colour}", f"{frame.path([*top, *reversed(floor)])}Z"))
        floor = top
    return traces


def _stack(series: Sequence[Series]) -> list[list[Point]]:
    """Cumulative tops; the series share their x values."""
    tops: list[list[Point]] = []
    for item in series:
        below = [y for _, y in tops[-1]] if tops else [0.0] * len(item.points)
        tops.append([(x, y + base) for (x, y), base in zip(item.points, below, strict=True)])
    return tops


def _grid(frame: Frame, ticks: Sequence[float], chart: Chart) -> tuple[list[Line], list[Label]]:
    lines, labels = [], []
    for value in ticks:
        y = frame.y(value)
        kind = "grid zero" if chart.zero_line and abs(value) < 1e-12 else "grid"
        lines.append(Line(kind, LEFT, round(y, 1), frame.width - RIGHT, round(y, 1)))
        labels.append(Label(chart.y_format(value), LEFT - 7, round(y + 4, 1), "end"))
    return lines, labels


def _x_axis(frame: Frame, chart: Chart) -> list[Label]:
    ticks = chart.ticks or [
        (value, short(value))
        for value in nice_ticks(frame.x_low, frame.x_high, 5 if chart.width == NARROW else 10)
        if frame.x_low <= value <= frame.x_high
    ]
    labels = []
    for value, label in ticks:
        x = frame.x(value)
        anchor = "end" if x > frame.width - 40 else "start" if x < LEFT + 20 else "middle"
        labels.append(Label(label, round(x, 1), HEIGHT - 12, anchor))
    return labels


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> tuple[list[Line], list[Label]]:
    places = [(round(frame.x(value), 1), label) for value, label in marks]
    lines = [Line("mark", x, TOP - 4, x, HEIGHT - BOTTOM) for x, _ in places]
    return lines, [Label(label, round(x + 4, 1), TOP - 8, kind="mark-label") for x, label in places]


def _legend(series: Sequence[Series]) -> list[tuple[str, str]]:
    named = [(f"key {item.colour}{_faint(item)}", item.name) for item in series if item.name]
    return named if len(named) > 1 else []


def _faint(item: Series) -> str:
    return " quiet" if item.quiet else ""

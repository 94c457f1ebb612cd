"""Line and area charts: pure functions from numbers to what templates/chart.html.j2 draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from persianmind.report.chart_text import alt_text, data_table, hovers
from persianmind.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    NARROW,
    RIGHT,
    TOP,
    WIDE,
    Drawing,
    Frame,
    Label,
    Line,
    Trace,
)
from persianmind.report.series import Bucket, Point, buckets, nice_ticks, short

MARK_CHARACTER_WIDTH = 7.5  # pixels, in the larger type of phones
LARGEST = 1e100  # points beyond are not drawn: sums and differences of the others stay finite


@dataclass(frozen=True)
class Series:
    """A line, of its points' means where they are many. `colour` is a class of style.css. dots: points alone,
    not joined; dotted: joined points, each with a dot."""

    name: str
    points: Sequence[Point]
    colour: str
    dots: bool = False
    dotted: bool = False

    @cached_property
    def buckets(self) -> list[Bucket]:
        """What is drawn."""
        return buckets(self.points)

    @property
    def is_bucketed(self) -> bool:
        """Whether a drawn point stands for several: their least and most are drawn as a band."""
        return len(self.buckets) < len(self.points)


@dataclass(frozen=True)
class Chart:
    """What to draw. `marks` are vertical lines (x, label); `ticks` replaces the numbers on the x axis.
    x_name, y_name: what the axes count, with the unit."""

    label: str
    series: Sequence[Series]
    x_name: str = "step"
    y_name: str = ""
    marks: Sequence[tuple[float, str]] = ()
    ticks: Sequence[tuple[float, str]] = ()
    from_zero: bool = False
    stacked: bool = False
    width: float = NARROW
    zero_line: bool = False
    y_format: Callable[[float], str] = short


def draw_wide(chart: Chart) -> list[Drawing]:
    """The chart over the whole width of the page, and again in a shape for phones; [] when it is empty."""
    found = _sound(chart)
    return [_draw(replace(found, width=WIDE)), _draw(found)] if found.series else []


def draw(chart: Chart) -> Drawing | None:
    """The chart in pixels; None when there is nothing to draw."""
    found = _sound(chart)
    return _draw(found) if found.series else None


def _draw(chart: Chart) -> Drawing:
    """A chart whose series can be drawn, at least one."""
    series = chart.series
    layers = _stack(series) if chart.stacked else [_means(item) for item in series]
    frame, y_ticks = _frame(chart, series, layers)
    grid_lines, grid_labels = _grid(frame, y_ticks, chart)
    mark_lines, mark_labels = _marks(frame, chart.marks)
    traces = _areas(frame, series, layers) if chart.stacked else _traces(frame, series)
    rows = {item.name: item.buckets for item in series}
    return Drawing(
        name=chart.label,
        label=alt_text(chart.label, chart.x_name, chart.y_name, rows),
        width=chart.width,
        height=HEIGHT,
        lines=[*grid_lines, *mark_lines],
        labels=[*grid_labels, *_x_axis(frame, chart), *mark_labels, *_axis_names(chart)],
        traces=traces,
        legend=_legend(series),
        hovers=hovers(frame, rows, chart.x_name, dict(chart.ticks)),
        table=data_table(rows, chart.x_name, dict(chart.ticks)),
    )


def _frame(
    chart: Chart, series: Sequence[Series], layers: Sequence[Sequence[Point]]
) -> tuple[Frame, list[float]]:
    """The plot that holds everything, and the steps of its y axis."""
    xs = [x for layer in layers for x, _ in layer] + [x for x, _ in chart.marks]
    ys = [y for layer in layers for _, y in layer] + ([0.0] if chart.from_zero or chart.stacked else [])
    if not chart.stacked:
        ys += [y for item in series for bucket in item.buckets for y in (bucket.low, bucket.high)]
    y_ticks = nice_ticks(min(ys), max(ys))
    return Frame(min(xs), max(xs), y_ticks[0], y_ticks[-1], chart.width), y_ticks


def _sound(chart: Chart) -> Chart:
    """The chart without what cannot be drawn."""
    marks = [(x, name) for x, name in chart.marks if abs(x) <= LARGEST]
    return replace(chart, series=_drawable(chart), marks=marks)


def _drawable(chart: Chart) -> list[Series]:
    """The series without points that are too large; those of a stack keep their x values in common."""
    lost = {point[0] for s in chart.series for point in s.points if not _fits(point)}
    kept = [
        replace(s, points=[p for p in s.points if _fits(p) and not (chart.stacked and p[0] in lost)])
        for s in chart.series
    ]
    return [s for s in kept if s.points]


def _fits(point: Point) -> bool:
    x, y = point
    return -LARGEST <= x <= LARGEST and -LARGEST <= y <= LARGEST


def _means(item: Series) -> list[Point]:
    return [(bucket.x, bucket.y) for bucket in item.buckets]


def _traces(frame: Frame, series: Sequence[Series]) -> list[Trace]:
    """Bands below all lines, then the lines."""
    bands = [Trace(f"band {item.colour}", _band(frame, item)) for item in series if item.is_bucketed]
    return [*bands, *(_trace(frame, item) for item in series)]


def _band(frame: Frame, item: Series) -> str:
    top = [(bucket.x, bucket.high) for bucket in item.buckets]
    floor = [(bucket.x, bucket.low) for bucket in reversed(item.buckets)]
    return f"{frame.path([*top, *floor])}Z"


def _trace(frame: Frame, item: Series) -> Trace:
    points = _means(item)
    path = frame.path(points) if len(points) > 1 and not item.dots else ""
    dots = frame.pixels(points) if item.dots or item.dotted or not path else []
    return Trace(f"line {item.colour}", path, f"dot {item.colour}", dots)


def _areas(frame: Frame, series: Sequence[Series], layers: Sequence[Sequence[Point]]) -> list[Trace]:
    """Each layer as an area down to the one below it."""
    traces = []
    floor: Sequence[Point] = [(x, 0.0) for x, _ in layers[0]]
    for item, top in zip(series, layers, strict=True):
        traces.append(Trace(f"area {item.colour}", f"{frame.path([*top, *reversed(floor)])}Z"))
        floor = top
    return traces


def _stack(series: Sequence[Series]) -> list[list[Point]]:
    """Cumulative tops; the series share their x values."""
    tops: list[list[Point]] = []
    for item in series:
        means = _means(item)
        below = [y for _, y in tops[-1]] if tops else [0.0] * len(means)
        tops.append([(x, y + base) for (x, y), base in zip(means, below, strict=True)])
    return tops


def _grid(frame: Frame, ticks: Sequence[float], chart: Chart) -> tuple[list[Line], list[Label]]:
    lines, labels = [], []
    for value in ticks:
        y = frame.y(value)
        kind = "grid zero" if chart.zero_line and abs(value) < 1e-12 else "grid"
        lines.append(Line(kind, LEFT, round(y, 1), frame.width - RIGHT, round(y, 1)))
        labels.append(Label(chart.y_format(value), LEFT - 9, round(y + 4, 1), "end"))
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
        labels.append(Label(label, round(x, 1), HEIGHT - BOTTOM + 18, anchor))
    return labels


def _axis_names(chart: Chart) -> list[Label]:
    names = [
        Label(chart.y_name, 0, 13, kind="axis-name"),
        Label(chart.x_name, chart.width - RIGHT, HEIGHT - 5, "end", "axis-name"),
    ]
    return [label for label in names if label.text]


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> tuple[list[Line], list[Label]]:
    places = [(round(frame.x(value), 1), label) for value, label in marks]
    lines = [Line("mark", x, TOP - 4, x, HEIGHT - BOTTOM) for x, _ in places]
    labels: list[Label] = []
    free_from = 0.0
    for x, label in places:  # a name that would lie over the one before, or over the edge, is left out
        end = x + 4 + MARK_CHARACTER_WIDTH * len(label)
        if x >= free_from and end <= frame.width + RIGHT:
            labels.append(Label(label, round(x + 4, 1), TOP - 8, kind="mark-label"))
            free_from = end
    return lines, labels


def _legend(series: Sequence[Series]) -> list[tuple[str, str]]:
    """Names where there are several, and what a band is where there is one."""
    named = [(f"key {item.colour}{' dots' if item.dots else ''}", item.name) for item in series if item.name]
    found = named if len(named) > 1 else []
    if bucketed := [item for item in series if item.is_bucketed]:
        size = max(-(-len(item.points) // len(item.buckets)) for item in bucketed)
        band = f"least and most of up to {size} steps; the line is their mean"
        found = [*found, (f"key band {bucketed[0].colour}", band)]
    return found

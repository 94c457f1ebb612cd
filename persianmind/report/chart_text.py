"""What a chart says without being seen: its alternative text, the values under the pointer, its numbers as a
table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from persianmind.report.drawing import RIGHT, Frame, Hover
from persianmind.report.series import Bucket
from persianmind.report.view import GAP, Cell, Table

MAX_ROWS = 24  # of a table, and strips under the pointer; points of a sparse series come on top
SPARSE = 12  # a series of so few points is shown at these alone, and at all of them

Rows = Mapping[str, Sequence[Bucket]]  # by series


def alt_text(label: str, x_name: str, y_name: str, rows: Rows) -> str:
    """The label, and of each series its first and last value, its least and its most."""
    unit = f", {y_name}" if y_name else ""
    parts = [
        f"{name or label}: from {_text(found[0].y)} to {_text(found[-1].y)}, least "
        f"{_text(min(one.low for one in found))}, most {_text(max(one.high for one in found))}"
        for name, found in rows.items()
    ]
    return f"{label}{unit}, by {x_name}. {'; '.join(parts)}."


def hovers(frame: Frame, rows: Rows, x_name: str, x_texts: Mapping[float, str]) -> list[Hover]:
    """Strips side by side over the whole plot, each with the values of all series at its place."""
    shown = _shown(rows)
    edges = [frame.x(x) for x in shown]
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    bounds = [frame.x(frame.x_low) - 6, *middles, frame.width - RIGHT + 6]
    return [
        Hover(round(left, 1), round(max(0.0, right - left), 1), _place(x, x_name, x_texts, found))
        for (x, found), left, right in zip(shown.items(), bounds, bounds[1:], strict=False)
    ]


def data_table(rows: Rows, x_name: str, x_texts: Mapping[float, str]) -> Table:
    """One line for each place that the pointer can be at; least and most where a mean stands for several."""
    names = list(rows)
    body = [
        [Cell(x_texts.get(x) or _text(x)), *(_cell(found.get(name)) for name in names)]
        for x, found in _shown(rows).items()
    ]
    return Table([x_name, *names], body)


def _shown(rows: Rows) -> dict[float, dict[str, Bucket]]:
    """Places of the x axis, evenly taken, and the bucket of each series there."""
    ordered = sorted({one.x for found in rows.values() if len(found) > SPARSE for one in found})
    count = min(MAX_ROWS, len(ordered))
    taken = {ordered[(len(ordered) - 1) * index // max(1, count - 1)] for index in range(count)}
    taken |= {one.x for found in rows.values() if len(found) <= SPARSE for one in found}
    return {
        x: {name: one for name, found in rows.items() if (one := _at(found, x)) is not None}
        for x in sorted(taken)
    }


def _at(found: Sequence[Bucket], x: float) -> Bucket | None:
    """The bucket nearest to a place within the series, of a sparse one only that of the place itself."""
    nearest = min(found, key=lambda one: abs(one.x - x))
    if nearest.x == x or (len(found) > SPARSE and found[0].x < x < found[-1].x):
        return nearest
    return None


def _place(x: float, x_name: str, x_texts: Mapping[float, str], found: Mapping[str, Bucket]) -> str:
    values = "; ".join(f"{name} {_cell_text(one)}".strip() for name, one in found.items())
    return f"{x_texts.get(x) or f'{x_name} {_text(x)}'}: {values}"


def _cell(bucket: Bucket | None) -> Cell:
    return GAP if bucket is None else Cell(_cell_text(bucket))


def _cell_text(bucket: Bucket) -> str:
    if bucket.low == bucket.high:
        return _text(bucket.y)
    return f"{_text(bucket.y)} ({_text(bucket.low)} to {_text(bucket.high)})"


def _text(value: float) -> str:
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 1000 or value == int(value) else f"{value:.4g}"

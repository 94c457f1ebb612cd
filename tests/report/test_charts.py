from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianmind.report.charts import Chart, Drawing, Series, draw, draw_wide
from persianmind.report.drawing import BOTTOM, HEIGHT, LEFT, NARROW, RIGHT, TOP
from persianmind.report.series import buckets, duration_unit, nice_ticks, short
from persianmind.report.values import number, quotient, scalar_text

reasonable = st.floats(-1e9, 1e9, allow_nan=False)
anything = st.floats(allow_nan=True, allow_infinity=True)


def drawn(chart: Chart) -> Drawing:
    drawing = draw(chart)
    assert drawing is not None
    return drawing


def coordinates(path: str) -> list[tuple[float, float]]:
    """The points of an SVG path."""
    pairs = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)
    return [(float(x), float(y)) for x, y in pairs]


@given(reasonable, reasonable)
def test_ticks_are_round_few_and_around_the_data(one: float, two: float) -> None:
    low, high = min(one, two), max(one, two)
    ticks = nice_ticks(low, high)
    slack = (ticks[1] - ticks[0]) * 1e-6
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    step = ticks[1] - ticks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert any(mantissa == pytest.approx(nice, rel=1e-3) for nice in (1, 2, 2.5, 5, 10))


@given(st.lists(st.tuples(reasonable, reasonable), min_size=1, max_size=900))
def test_buckets_keep_order_the_mean_and_every_spike(points: list[tuple[float, float]]) -> None:
    points = sorted(points)
    kept = buckets(points, 50)
    assert len(kept) == min(50, len(points)) and kept == sorted(kept, key=lambda bucket: bucket.x)
    assert max(bucket.high for bucket in kept) == max(y for _, y in points)
    assert min(bucket.low for bucket in kept) == min(y for _, y in points)
    assert all(bucket.low <= bucket.y <= bucket.high for bucket in kept)
    even = [(float(i), float(i % 7)) for i in range(5000)]
    assert sum(bucket.y for bucket in buckets(even, 50)) / 50 == pytest.approx(sum(y for _, y in even) / 5000)


def test_one_high_step_of_thousands_stands_in_the_drawing_the_table_and_the_text() -> None:
    """A mean of buckets would hide it: the control."""
    points = [(float(step), 9.0 if step == 4211 else 2.0) for step in range(15_000)]
    drawing = drawn(Chart("loss", [Series("loss", points, "t-target")]))
    [band] = [trace for trace in drawing.traces if trace.kind == "band t-target"]
    [line] = [trace for trace in drawing.traces if trace.kind == "line t-target"]
    assert min(y for _, y in coordinates(band.path)) < min(y for _, y in coordinates(line.path)) - 50
    assert "most 9" in drawing.label and max(y for _, y in points) == 9.0
    assert drawing.legend[-1][1] == "least and most of up to 125 steps; the line is their mean"


def test_a_short_curve_is_drawn_step_by_step_without_a_band() -> None:
    drawing = drawn(Chart("loss", [Series("loss", [(float(i), float(i)) for i in range(60)], "t-target")]))
    assert [trace.kind for trace in drawing.traces] == ["line t-target"] and drawing.legend == []


def test_the_pointer_the_table_and_the_alternative_text_have_the_values() -> None:
    trained = [(float(step), 3.0 - step / 10) for step in range(20)]
    series = [Series("a", trained, "t-target"), Series("b", [(10.0, 1.5)], "t-english", dots=True)]
    drawing = drawn(Chart("Loss", series, y_name="bits per byte"))
    assert drawing.label == (
        "Loss, bits per byte, by step. a: from 3 to 1.1, least 1.1, most 3; b: from 1.5 to 1.5, least 1.5, "
        "most 1.5."
    )
    texts = [hover.text for hover in drawing.hovers]
    assert "step 10: a 2; b 1.5" in texts and "step 9: a 2.1" in texts
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in drawing.table.body}
    assert rows["10"] == ["2", "1.5"] and rows["9"] == ["2.1", None] and len(rows) == 20
    # The strips lie side by side over the whole plot.
    ends = [hover.x + hover.width for hover in drawing.hovers]
    assert ends[:-1] == pytest.approx([hover.x for hover in drawing.hovers[1:]], abs=0.2)


@pytest.mark.parametrize(
    ("seconds", "unit"), [(5, "seconds"), (600, "minutes"), (9000, "hours"), (400_000, "days")]
)
def test_an_axis_of_time_has_the_unit_of_its_length(seconds: float, unit: str) -> None:
    assert duration_unit(seconds)[0] == unit


def test_names_of_stages_that_would_overlap_are_left_out() -> None:
    line = Series("a", [(0.0, 1.0), (1000.0, 2.0)], "t-target")
    marks = [(0.0, "pretrain"), (10.0, "instruct"), (900.0, "last")]
    drawing = drawn(Chart("x", [line], marks=marks))
    assert [label.text for label in drawing.labels if label.kind == "mark-label"] == ["pretrain", "last"]
    assert len([line for line in drawing.lines if line.kind == "mark"]) == 3


def test_every_drawn_coordinate_is_inside() -> None:
    points = [(float(i), math.sin(i) * 1e-5) for i in range(50)]
    [trace] = drawn(Chart("x", [Series("a", points, "t-target")], marks=[(10.0, "stage")])).traces
    places = coordinates(trace.path)
    assert len(places) == 50
    right, bottom = NARROW - RIGHT, HEIGHT - BOTTOM
    assert all(LEFT <= x <= right and TOP <= y <= bottom for x, y in places)


def test_the_wide_drawing_is_wider_and_says_the_same() -> None:
    wide, narrow = draw_wide(Chart("x", [Series("a", [(0.0, 1.0), (1.0, 2.0)], "t-target")]))
    assert (wide.width, narrow.width) == (980, 480)
    assert max(x for x, _ in coordinates(wide.traces[0].path)) == 968
    assert [y for _, y in coordinates(wide.traces[0].path)] == [
        y for _, y in coordinates(narrow.traces[0].path)
    ]


def test_one_point_a_constant_and_nothing_can_be_drawn() -> None:
    [single] = drawn(Chart("x", [Series("a", [(1.0, 2.0)], "t-target")])).traces
    assert len(single.dots) == 1 and single.path == ""
    [constant] = drawn(Chart("x", [Series("a", [(1.0, 2.0), (2.0, 2.0)], "t-target")])).traces
    assert len(coordinates(constant.path)) == 2 and not constant.dots
    assert draw(Chart("x", [Series("a", [], "t-target")])) is None and draw_wide(Chart("x", [])) == []


def test_stacked_areas_lie_on_each_other() -> None:
    lower, upper = [(0.0, 1.0), (1.0, 1.0)], [(0.0, 2.0), (1.0, 2.0)]
    chart = Chart("x", [Series("a", lower, "t-target"), Series("b", upper, "t-english")], stacked=True)
    first, second = (coordinates(trace.path) for trace in drawn(chart).traces)
    assert first[:2] == list(reversed(second[2:]))
    assert second[0][1] < first[0][1]  # pixels count from the top


def test_a_legend_names_the_series_where_there_are_several() -> None:
    one, two = Series("a", [(0.0, 1.0)], "t-target"), Series("b", [(0.0, 2.0)], "t-english", dots=True)
    assert drawn(Chart("x", [one])).legend == []
    assert drawn(Chart("x", [one, two])).legend == [("key t-target", "a"), ("key t-english dots", "b")]


def test_a_mark_outside_of_the_points_is_drawn_within_the_plot() -> None:
    """A base that is scored, and no stage yet: one point at 0, stages that begin after it."""
    marks = [(1.0, "pretrain"), (120.0, "instruct"), (1e300, "never")]
    drawing = drawn(Chart("x", [Series("a", [(0.0, 1.9)], "t-target")], marks=marks))
    places = [line.x1 for line in drawing.lines if line.kind == "mark"]
    assert len(places) == 2 and places == sorted(places)
    assert places[0] > LEFT and places[1] == NARROW - RIGHT


def test_marks_and_ticks_carry_their_text() -> None:
    chart = Chart(
        "x", [Series("a", [(0.0, 1.0), (9.0, 2.0)], "t-target")], marks=[(0.0, "<b>")], ticks=[(9.0, "end")]
    )
    labels = {label.text: label for label in drawn(chart).labels}
    assert labels["<b>"].kind == "mark-label" and labels["end"].anchor == "end"
    assert [line.x1 for line in drawn(chart).lines if line.kind == "mark"] == [LEFT]


@given(st.lists(st.tuples(anything, anything), max_size=30), st.booleans())
def test_no_number_stops_a_drawing(points: list[tuple[float, float]], stacked: bool) -> None:
    series = [Series("a", points, "t-target"), Series("b", points, "t-english")]
    drawing = draw(Chart("x", series, stacked=stacked, from_zero=True))
    fits = [p for p in points if all(math.isfinite(v) and abs(v) <= 1e100 for v in p)]
    assert (drawing is None) == (not fits) or stacked
    for trace in drawing.traces if drawing else []:
        assert all(math.isfinite(v) and abs(v) < 2000 for p in coordinates(trace.path) for v in p)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0002, "2e-4"), (0.00015, "1.5e-4"), (1.25, "1.25"), (20000, "20k"), (2.5e6, "2.5M")],
)
def test_axis_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_what_is_no_number_is_none() -> None:
    assert number(3) == 3.0
    for value in (True, None, "3", float("nan"), float("inf"), [1], 10**400):
        assert number(value) is None


def test_a_quotient_is_finite_or_none() -> None:
    assert quotient(1.0, 4.0, 100) == 25
    for part, whole in ((None, 1.0), (1.0, None), (1.0, 0.0), (1e308, 1e-308)):
        assert quotient(part, whole) is None


def test_only_scalars_are_written_out() -> None:
    assert [scalar_text(value) for value in ("a", 2, 0.5, True, None)] == ["a", "2", "0.5", "True", "None"]
    assert [scalar_text(value) for value in ([1], {"a": 1}, object())] == ["–"] * 3

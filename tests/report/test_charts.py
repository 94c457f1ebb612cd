from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianmind.report.charts import Chart, Series, draw, nice_ticks, short, smooth, thin
from persianmind.report.read import number

reasonable = st.floats(-1e9, 1e9, allow_nan=False)


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
def test_thinning_keeps_order_and_the_mean(points: list[tuple[float, float]]) -> None:
    points = sorted(points)
    kept = thin(points, 50)
    assert len(kept) <= 50 and kept == sorted(kept, key=lambda point: point[0])
    assert kept[0][0] >= points[0][0] - 1 and kept[-1][0] <= points[-1][0] + 1
    even = [(float(i), float(i % 7)) for i in range(5000)]
    assert sum(y for _, y in thin(even, 50)) / 50 == pytest.approx(sum(y for _, y in even) / 5000)


def test_smoothing_follows_a_level_and_damps_noise() -> None:
    flat = smooth([(float(i), 3.0) for i in range(100)])
    assert all(y == 3.0 for _, y in flat)
    noisy = smooth([(float(i), 3.0 + (-1) ** i) for i in range(400)])
    assert max(abs(y - 3) for _, y in noisy[200:]) < 0.2


def test_every_drawn_coordinate_is_finite_and_inside() -> None:
    points = [(float(i), math.sin(i) * 1e-5) for i in range(50)]
    drawn = draw(Chart("x", [Series("a", points, "t-fa")], marks=[(10.0, "stage")]))
    numbers = [float(n) for n in re.findall(r"[ML ](-?\d+\.\d)", drawn)]
    assert len(numbers) == 100 and all(0 <= n <= 480 for n in numbers)
    assert "nan" not in drawn and 'role="img"' in drawn


def test_one_point_a_constant_and_nothing_can_be_drawn() -> None:
    assert "<circle" in draw(Chart("x", [Series("a", [(1.0, 2.0)], "t-fa")]))
    assert "<path" in draw(Chart("x", [Series("a", [(1.0, 2.0), (2.0, 2.0)], "t-fa")]))
    assert draw(Chart("x", [Series("a", [], "t-fa")])) == ""


def test_stacked_areas_lie_on_each_other() -> None:
    lower, upper = [(0.0, 1.0), (1.0, 1.0)], [(0.0, 2.0), (1.0, 2.0)]
    drawn = draw(Chart("x", [Series("a", lower, "t-fa"), Series("b", upper, "t-en")], stacked=True))
    paths = re.findall(r'class="area [^"]+" d="M([^Z]+)Z', drawn)
    top_of_lower = paths[0].split("L")[:2]
    assert top_of_lower == list(reversed(paths[1].split("L")[2:]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0002, "2e-4"), (0.00015, "1.5e-4"), (1.25, "1.25"), (20000, "20k"), (2.5e6, "2.5M")],
)
def test_axis_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_what_is_no_number_is_none() -> None:
    assert number(3) == 3.0
    for value in (True, None, "3", float("nan"), float("inf"), [1]):
        assert number(value) is None

"""Times as people say them."""

from __future__ import annotations

from datetime import datetime

import pytest

from persianmind.common.units import clock_text, duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (45, "45 s"),
        (119.4, "119 s"),
        (150, "2 min"),
        (3_600, "60 min"),
        (12_000, "3 h 20 min"),
        (7_199.7, "2 h 0 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "22:01"), (3 * 3600, "Sat 01:00"), (10 * 86_400, "07 Dec 22:00")]
)
def test_the_clock_says_the_day_where_it_is_another(seconds: float, text: str) -> None:
    assert clock_text(seconds, datetime(2026, 11, 27, 22, 0)) == text

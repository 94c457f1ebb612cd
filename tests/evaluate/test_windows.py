"""Windows over a text: every token is predicted once, behind what stands before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianmind.evaluate.windows import rolling_windows

PREFIX = -1


@given(st.integers(0, 80), st.integers(1, 20), st.integers(1, 20))
def test_every_token_once_in_order_behind_its_own_past(n: int, size: int, stride: int) -> None:
    ids = list(range(n))
    windows = list(rolling_windows(ids, PREFIX, size, min(stride, size)))
    assert [token for window in windows for token in window.predicted] == ids
    led = [PREFIX, *ids]
    for window in windows:
        start = led.index(window.predicted[0])
        assert window.given == tuple(led[start - len(window.given) : start]) and window.given
        assert len(window.ids) - 1 <= size  # what the model is given at once


def test_a_smaller_stride_gives_more_context() -> None:
    wide = list(rolling_windows(list(range(20)), PREFIX, 8))
    narrow = list(rolling_windows(list(range(20)), PREFIX, 8, 2))
    assert min(len(one.given) for one in narrow[1:]) > len(wide[1].given) == 1


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_beyond_the_window_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="not within a window of 8"):
        list(rolling_windows([1, 2], PREFIX, 8, stride))

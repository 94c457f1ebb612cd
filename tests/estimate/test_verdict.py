"""The search for the largest that fits, over made-up memory."""

from __future__ import annotations

import pytest

from persianmind.estimate.verdict import largest_multiple


@pytest.mark.parametrize(("room", "expected"), [(-1, 0), (0, 1), (9, 10), (10_000, 64)])
def test_memory_that_grows_evenly(room: int, expected: int) -> None:
    assert largest_multiple(lambda size: room - (size - 1), 1, 64) == expected


@pytest.mark.parametrize("room", [0, 5, 77, 400, 4095])
def test_memory_that_grows_ever_faster(room: int) -> None:
    asked: list[int] = []

    def headroom(size: int) -> int:
        asked.append(size)
        return room - max(size, size * size // 8)

    expected = max((size for size in range(1, 65) if headroom(size) >= 0), default=0)
    asked.clear()
    assert largest_multiple(headroom, 1, 64) == expected
    assert len(asked) < 12


def test_memory_that_grows_more_slowly_once_it_is_large() -> None:
    """No line through small sizes says so."""
    assert largest_multiple(lambda size: 40 - min(10 * size, 20 + size), 1, 64) == 20


@pytest.mark.parametrize("start", [100, 256, 300, 1024, 8192])
def test_where_it_begins_changes_nothing(start: int) -> None:
    """Below the unit, between multiples, where it does not fit, beyond the limit."""
    assert largest_multiple(lambda length: 5000 - length, 256, 131_072, start) == 4864
    assert largest_multiple(lambda length: 300 - length, 256, 4096, start) == 256
    assert largest_multiple(lambda length: 200 - length, 256, 4096, start) == 0


def test_multiples_of_a_unit() -> None:
    assert largest_multiple(lambda length: 5000 - length, 256, 131_072) == 4864
    assert largest_multiple(lambda length: 5000, 256, 4000) == 3840

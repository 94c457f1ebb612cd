"""Reading ahead: it overlaps, never runs further than one, keeps order, surfaces errors, leaves no thread."""

from __future__ import annotations

import threading

import pytest

from persianmind.common.errors import DataError
from persianmind.data.read.prefetch import ReadAhead

LONG_S = 30.0


class Slow:
    """Reads that each wait until they are let go; `begun` and `ended` say which did."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.began = {number: threading.Event() for number in range(9)}
        self.let_go = {number: threading.Event() for number in range(9)}

    def read(self, number: int) -> str:
        self.begun.append(number)
        self.began[number].set()
        assert self.let_go[number].wait(LONG_S)
        self.ended.append(number)
        return f"item {number}"


def _threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("read-ahead")]


def test_the_next_is_read_while_one_is_in_use() -> None:
    slow = Slow()
    slow.let_go[0].set()
    with ReadAhead(slow.read) as ahead:
        items = ahead.items(range(3))
        assert next(items) == "item 0"
        assert slow.began[1].wait(LONG_S)  # nobody has asked for it yet
        assert slow.ended == [0]
        for number in (1, 2):
            slow.let_go[number].set()
        assert list(items) == ["item 1", "item 2"]


def test_never_further_than_one() -> None:
    slow = Slow()
    for event in slow.let_go.values():
        event.set()
    with ReadAhead(slow.read) as ahead:
        items = ahead.items(range(5))
        next(items)
        assert slow.began[1].wait(LONG_S)
        assert not slow.began[2].wait(0.05)
        assert list(items) == [f"item {number}" for number in range(1, 5)]
    assert slow.ended == list(range(5))


def test_what_comes_then_is_read_once_and_nothing_else_is() -> None:
    slow = Slow()
    for event in slow.let_go.values():
        event.set()
    with ReadAhead(slow.read) as ahead:
        assert list(ahead.items([0, 1], then=2)) == ["item 0", "item 1"]
        assert slow.began[2].wait(LONG_S)
        assert list(ahead.items([2, 3])) == ["item 2", "item 3"]
    assert slow.begun == [0, 1, 2, 3]


def test_another_than_was_expected_is_what_was_asked_for() -> None:
    with ReadAhead(lambda number: number) as ahead:
        assert list(ahead.items([0], then=1)) == [0]
        assert list(ahead.items([5, 6])) == [5, 6]


def test_an_error_comes_where_its_item_would_have() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise DataError("shard-00002 is damaged")
        return number

    seen = []
    with pytest.raises(DataError, match="shard-00002 is damaged"), ReadAhead(read) as ahead:
        for item in ahead.items(range(5)):
            seen.append(item)
    assert seen == [0, 1]
    assert not _threads()


def test_no_thread_is_left_when_the_user_of_an_item_fails() -> None:
    slow = Slow()
    for event in slow.let_go.values():
        event.set()
    with pytest.raises(ZeroDivisionError), ReadAhead(slow.read) as ahead:
        for _ in ahead.items(range(5)):
            assert _threads()  # control
            raise ZeroDivisionError
    assert not _threads()
    assert len(slow.begun) <= 2

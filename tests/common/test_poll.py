"""Waiting: what was found is returned, time ends it, and whoever waits can be interrupted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from persianmind.common import poll
from persianmind.common.poll import spaced_out, wait_until


class Clock:
    """Time that passes only in sleep()."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    one = Clock()
    monkeypatch.setattr(poll, "time", one)
    yield one


def test_what_is_there_is_returned_without_a_pause(clock: Clock) -> None:
    assert wait_until(lambda: "found", timeout_s=0) == "found"
    assert clock.slept_s == []


def test_it_looks_until_something_is_there(clock: Clock) -> None:
    looks = iter([None, 0, "", "third time lucky"])
    assert wait_until(lambda: next(looks), interval_s=2) == "third time lucky"
    assert clock.slept_s == [2, 2, 2]


def test_the_time_over_it_looks_once_more_and_returns_the_last_false_value(clock: Clock) -> None:
    looked_s: list[float] = []

    def look() -> list[int]:
        looked_s.append(clock.now_s - 100)
        return []

    assert wait_until(look, timeout_s=5, interval_s=2) == []
    assert looked_s == [0, 2, 4, 5]


def test_a_timeout_of_zero_looks_once(clock: Clock) -> None:
    looks: list[int] = []
    assert not wait_until(lambda: looks.append(1), timeout_s=0)
    assert looks == [1] and clock.slept_s == []


def test_what_is_raised_while_waiting_ends_it(clock: Clock) -> None:
    waited: list[int] = []

    def while_waiting() -> None:
        waited.append(1)
        if len(waited) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_until(lambda: None, interval_s=1, while_waiting=while_waiting)
    assert clock.slept_s == [1, 1]


def test_what_is_said_while_waiting_comes_at_once_and_then_ever_more_rarely(clock: Clock) -> None:
    said_s: list[float] = []
    wait_until(lambda: None, timeout_s=120, interval_s=2, while_waiting=spaced_out(said_s.append))
    assert said_s == [0, 10, 30, 70]

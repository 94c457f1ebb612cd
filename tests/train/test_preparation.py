"""The watch over preparation: what rank 0 gets done keeps the others waiting, nothing else does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import HangError, RankUnreachableError, VocabError
from persianmind.common.poll import wait_until
from persianmind.common.progress import count_work
from persianmind.engine.ranks import Ranks
from persianmind.run.folder import RunFolder
from persianmind.run.records import Heartbeat
from persianmind.train import preparation
from persianmind.train.callbacks.watchdog import Watchdog
from persianmind.train.heartbeats import SIZE_BYTES, heartbeat_path, read_heartbeat, write_heartbeat
from persianmind.train.preparation import PreparationWatch, preparation_timeout_s, watched_preparation

LIMIT_S = 100.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(preparation.time, "monotonic", found.monotonic)
    monkeypatch.setenv("MASTER_ADDR", "box0")
    monkeypatch.setenv("MASTER_PORT", "29500")
    return found


def beat(number: int, work: int, **changes: Any) -> Heartbeat:
    values: dict[str, Any] = {
        "tick": number,
        "pid": 7,
        "node": "box0",
        "beats": work,
        "where": "vocab/learn.py:170 _learn",
        "waits": False,
        "launch": "box0:29500",
        "preparing": "vocabulary of 9510 new tokens",
    }
    return Heartbeat(**{**values, **changes})


def look(folder: Path, clock: Clock, beats: Iterator[Heartbeat | None], seconds: float) -> None:
    """A waiting rank looks every two seconds while rank 0 writes what `beats` gives."""
    watch = PreparationWatch(RunFolder(folder), LIMIT_S)
    for _ in range(int(seconds / 2)):
        clock.now_s += 2.0
        if (found := next(beats)) is not None:
            write_heartbeat(heartbeat_path(RunFolder(folder).heartbeats, 0), found)
        watch.check()


def endless(make: Callable[[int], Heartbeat | None]) -> Iterator[Heartbeat | None]:
    number = 0
    while True:
        number += 1
        yield make(number)


def test_work_that_goes_on_is_waited_for_however_long(tmp_path: Path, clock: Clock) -> None:
    look(tmp_path, clock, endless(lambda n: beat(n, n // 40)), 3000.0)


def test_another_thing_to_prepare_is_progress(tmp_path: Path, clock: Clock) -> None:
    look(tmp_path, clock, endless(lambda n: beat(n, 0, preparing=f"data of {n // 40}")), 3000.0)


def test_signs_of_life_without_work_are_a_hang_that_is_named(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(HangError) as caught:
        look(tmp_path, clock, endless(lambda n: beat(n, min(n, 5))), 3000.0)
    assert not isinstance(caught.value, RankUnreachableError)
    assert str(caught.value) == (
        "rank 0 (pid 7 on box0, preparing vocabulary of 9510 new tokens) made no progress for 102 s "
        "(train.hang_timeout_s); it stands at vocab/learn.py:170 _learn"
    )


def test_a_heartbeat_that_stops_is_a_rank_without_a_sign_of_life(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(RankUnreachableError, match=r"rank 0 \(pid 7 on box0, .* gives no sign of life"):
        look(tmp_path, clock, endless(lambda n: beat(min(n, 9), min(n, 9))), 3000.0)


@pytest.mark.parametrize(
    "left",
    [
        None,
        beat(3, 3),  # as it lay there, of an attempt that was killed
        beat(3, 3, failed="of an attempt that failed"),
    ],
)
def test_a_rank_0_that_never_comes_is_named_by_where_the_ranks_meet(
    tmp_path: Path, clock: Clock, left: Heartbeat | None
) -> None:
    if left is not None:
        write_heartbeat(heartbeat_path(RunFolder(tmp_path).heartbeats, 0), left)
    with pytest.raises(RankUnreachableError) as caught:
        look(tmp_path, clock, endless(lambda n: None), 3000.0)
    assert str(caught.value).startswith(f"rank 0 (of box0:29500), which prepares {tmp_path}, gave no sign")


def test_the_rank_0_of_another_launch_on_the_folder_is_not_taken_for_ours(
    tmp_path: Path, clock: Clock
) -> None:
    other = endless(lambda n: beat(n, n, launch="box9:29500"))
    with pytest.raises(RankUnreachableError, match="of box0:29500"):
        look(tmp_path, clock, other, 3000.0)
    look(tmp_path, clock, endless(lambda n: beat(n, n)), 300.0)  # the control: ours is


def test_why_rank_0_failed_is_passed_on(tmp_path: Path, clock: Clock) -> None:
    beats = iter([beat(1, 1), beat(2, 2), beat(3, 2, failed="no room")])
    with pytest.raises(RankUnreachableError, match=r"new tokens\) failed: no room"):
        look(tmp_path, clock, beats, 10.0)


def test_the_roll_call_asks_when_rank_0_made_progress_and_hears_why_it_failed(
    tmp_path: Path, clock: Clock
) -> None:
    path = heartbeat_path(RunFolder(tmp_path).heartbeats, 0)
    watch = PreparationWatch(RunFolder(tmp_path), LIMIT_S)
    began_s = clock.now_s
    assert watch.progressed_s() == began_s
    for number in (1, 2):
        clock.now_s += 5.0
        write_heartbeat(path, beat(number, number))
        assert watch.progressed_s() == clock.now_s
    clock.now_s += 5.0
    write_heartbeat(path, beat(3, 2))
    assert watch.progressed_s() == clock.now_s - 5.0
    clock.now_s += 5.0
    write_heartbeat(path, beat(4, 2, failed="no room"))
    with pytest.raises(RankUnreachableError, match="failed: no room"):
        watch.progressed_s()


def test_a_waiting_rank_that_was_itself_stopped_blames_nobody(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = PreparationWatch(RunFolder(tmp_path), LIMIT_S)
    clock.now_s += 3600.0
    watch.check()
    monkeypatch.setattr(preparation, "SUSPENDED_S", float("inf"))
    clock.now_s += 3600.0
    with pytest.raises(RankUnreachableError):  # the control
        watch.check()


def test_imports_that_count_no_work_have_two_minutes_at_least() -> None:
    assert preparation_timeout_s(3.0) == 120.0 and preparation_timeout_s(1800.0) == 1800.0


# --- rank 0's own side -------------------------------------------------------------------------------------
APART = Ranks(rank=0, world_size=2, local_rank=0, local_size=1)


def test_its_heartbeat_says_what_it_prepares_and_its_work_and_keeps_its_blocks(tmp_path: Path) -> None:
    path = heartbeat_path(RunFolder(tmp_path).heartbeats, 0)
    seen: list[Heartbeat] = []

    def changed() -> bool:
        found = read_heartbeat(path)
        if found is not None and (not seen or found.beats != seen[-1].beats):
            seen.append(found)
        count_work()
        return len(seen) == 4

    with watched_preparation(RunFolder(tmp_path), APART, 1.0, ()) as watchdog:
        watchdog.preparing = "base model"
        assert wait_until(changed, timeout_s=60, interval_s=0.01)
        inode = path.stat().st_ino
        assert wait_until(lambda: len(seen) == 4, timeout_s=60) and path.stat().st_ino == inode
    assert seen[-1].preparing == "base model" and seen[0].node == APART.node
    assert path.stat().st_size == SIZE_BYTES


@pytest.mark.parametrize(("ranks", "waits"), [(APART, 1), (Ranks(0, 2, 0, 2), 0)])
def test_an_error_stands_there_for_the_ranks_of_other_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: Ranks, waits: int
) -> None:
    slept: list[float] = []
    real = time.sleep
    monkeypatch.setattr(preparation.time, "sleep", lambda s: (slept.append(s), real(s)))
    with (
        pytest.raises(VocabError),
        watched_preparation(RunFolder(tmp_path), ranks, 1.0, ()),
    ):
        raise VocabError("too few\npieces")
    assert len(slept) == waits
    if waits:  # on one node the launcher ends the others
        found = read_heartbeat(heartbeat_path(RunFolder(tmp_path).heartbeats, 0))
        assert found is not None and found.failed == "too few pieces"


def test_a_thread_that_only_ticks_does_not_keep_it_alive_and_counted_work_does(tmp_path: Path) -> None:
    ended: list[int] = []
    alone = Ranks(0, 1, 0, 1)
    with Watchdog(RunFolder(tmp_path), alone, 0.5, (), end=ended.append):
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            count_work()
            time.sleep(0.05)
        assert not ended
        assert wait_until(lambda: bool(ended), timeout_s=60), "its own ticks are no progress"
    assert ended == [HangError.exit_code]

"""Steps wait for their sequences together: on real folders partly built, over two ranks as threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import BuildFailedError, BuildStalledError
from persianmind.data.build import pipeline
from persianmind.data.read import barrier as barrier_module
from persianmind.data.read.barrier import Builder, DataBarrier
from persianmind.data.read.incremental import write_failure
from persianmind.recipe import Recipe
from tests.data.helpers import build, make_bpe, make_recipe, sentences, write_jsonl
from tests.data.read.helpers import build_part, incremental, stage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "persianmind")
    monkeypatch.setattr(pipeline, "BATCH_RECORDS", 40)
    monkeypatch.setattr(barrier_module, "POLL_S", 0.01)
    monkeypatch.setattr(barrier_module, "LOOK_INTERVAL_S", 0.0)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """One source of which two shards (16 sequences, one block) are built in tmp_path/fa."""
    path = write_jsonl(tmp_path / "fa.jsonl", [{"text": text} for text in sentences(400)])
    make_bpe(tmp_path / "bpe")
    one = make_recipe(
        {"fa": {"uri": str(path)}},
        data={"sequences_per_shard": 8, "shuffle_block_sequences": 16},
        stages=[{"name": "one", "sources": {"fa": 1.0}, "tokens": 64 * 100}],
    )
    build_part(one, "fa", tmp_path / "bpe", tmp_path, 2)
    return one


class Rank:
    """One rank's barrier over the folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        count: Callable[[Sequence[int]], list[int]] = list,
        builder: Builder | None = None,
        stall_limit_s: float = 60.0,
    ) -> None:
        datasets = incremental(recipe, folder / "bpe", folder)
        self.beats = self.exchanges = 0
        self._count = count
        self.data = stage(recipe, datasets)
        self.barrier = DataBarrier(datasets, self._counted, self._beat, builder, stall_limit_s)

    def _counted(self, values: Sequence[int]) -> list[int]:
        self.exchanges += 1
        return self._count(values)

    def _beat(self) -> None:
        self.beats += 1

    def open(self, samples: range, stop: Callable[[], bool] = lambda: False) -> bool:
        return self.barrier.open(self.data, samples, stop)


def test_sequences_that_are_there_are_not_waited_for(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rank = Rank(recipe, tmp_path)
    assert rank.open(range(16), stop=lambda: True), (
        "a stop is the step's own business where nothing is missing"
    )
    assert rank.beats == 0 and not caplog.messages


def test_a_stop_ends_the_wait_and_the_end_of_the_build_opens(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rank = Rank(recipe, tmp_path)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    assert not rank.open(range(64, 68), stop)
    assert len(asked) == 6 and rank.beats == 5, "waiting is no hang"
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("data: waiting for fa, of which ")
    build(recipe, "fa", tmp_path / "bpe", tmp_path / "fa")
    assert rank.open(range(64, 68))
    assert caplog.messages[1].startswith("data: fa is whole, ")
    before = rank.exchanges
    assert rank.open(range(68, 72)) and rank.exchanges == before, "a whole stage costs no exchange"


def test_a_failed_build_ends_the_wait_with_its_line(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rank = Rank(recipe, tmp_path)
    write_failure(tmp_path / "fa", "sources.fa: 7 of 9 records are bad")
    assert rank.open(range(16)), "what was built before can be used"
    assert "training goes on as far as its sequences do: sources.fa: 7 of 9" in caplog.messages[0]
    with pytest.raises(BuildFailedError, match=r"sources\.fa: 7 of 9 records are bad"):
        rank.open(range(64, 68))


class _Sum:
    """Sums over two threads, each the caller of one rank."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)
        self.values: list[Sequence[int]] = []
        self.lock = threading.Lock()

    def __call__(self, values: Sequence[int]) -> list[int]:
        with self.lock:
            self.values.append(list(values))
        self.barrier.wait()
        total = [sum(column) for column in zip(*self.values[-2:], strict=True)]
        self.barrier.wait()
        return total


@pytest.mark.parametrize("stopped", [False, True])
def test_ranks_that_see_the_files_at_different_times_go_on_together(
    recipe: Recipe, tmp_path: Path, stopped: bool
) -> None:
    """One rank has the sequences, the other (another machine, say) does not see them yet: both wait, both
    answer alike, also when only the one that has them is asked to stop."""
    summed = _Sum()
    early, late = Rank(recipe, tmp_path, summed), Rank(recipe, tmp_path, summed)
    build(recipe, "fa", tmp_path / "bpe", tmp_path / "fa")
    early.data.datasets["fa"].refresh()
    looks: list[int] = []
    real = late.data.datasets["fa"].refresh

    def blind() -> None:
        looks.append(1)
        if len(looks) > 20:
            real()

    late.data.datasets["fa"].refresh = blind  # type: ignore[method-assign]
    answers: dict[str, Any] = {}

    def run(name: str, rank: Rank, stop: bool) -> None:
        answers[name] = rank.open(range(64, 68), lambda: stop)

    threads = [
        threading.Thread(target=run, args=("early", early, stopped)),
        threading.Thread(target=run, args=("late", late, False)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {"early": not stopped, "late": not stopped}
    assert early.exchanges == late.exchanges
    assert (len(looks) > 20) is not stopped


def test_a_failure_that_one_rank_sees_first_is_raised_by_all(recipe: Recipe, tmp_path: Path) -> None:
    summed = _Sum()
    early, late = Rank(recipe, tmp_path, summed), Rank(recipe, tmp_path, summed)
    looks: list[int] = []
    real = late.data.datasets["fa"].refresh

    def blind() -> None:
        looks.append(1)
        if len(looks) > 2:  # a moment later, as on another machine
            real()

    late.data.datasets["fa"].refresh = blind  # type: ignore[method-assign]
    write_failure(tmp_path / "fa", "sources.fa: no room left")
    raised: list[str] = []

    def run(rank: Rank) -> None:
        with pytest.raises(BuildFailedError) as caught:
            rank.open(range(64, 68))
        raised.append(str(caught.value))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (early, late)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert raised == ["sources.fa: no room left"] * 2
    assert early.exchanges == late.exchanges == 1


# --- the builder ------------------------------------------------------------------------------------------
class Imitated:
    """A builder that does what a test says at each look."""

    def __init__(self, work: Callable[[int], int], **failures: str) -> None:
        self.log = Path("run/builder.log")
        self.looks = 0
        self._work, self._failures = work, failures

    @property
    def work_done(self) -> int:
        self.looks += 1
        return self._work(self.looks)

    def failures(self) -> dict[str, str]:
        return dict(self._failures)


def test_a_builder_that_gets_nothing_done_ends_the_wait_and_names_source_and_log(
    recipe: Recipe, tmp_path: Path
) -> None:
    summed = _Sum()
    stalled = Imitated(lambda looks: min(looks, 20))
    ranks = [
        Rank(recipe, tmp_path, summed, stalled, stall_limit_s=0.3),
        Rank(recipe, tmp_path, summed),
    ]
    raised = _raised_by_both(ranks)
    assert isinstance(raised[0], BuildStalledError) and raised[0].exit_code == 8
    assert str(raised[0]).startswith("the process that builds sources.fa got nothing done for 0 s")
    assert "run/builder.log" in str(raised[0])
    assert raised[1].by_all_ranks, "the other rank has nothing to add"
    assert stalled.looks > 20 and ranks[0].beats == ranks[1].beats


def test_what_failed_is_known_by_its_packing(recipe: Recipe, tmp_path: Path) -> None:
    """The same source at another length may have been built before."""
    builder = Imitated(lambda looks: looks, **{"fa@32": "no room left"})
    rank, stops = Rank(recipe, tmp_path, builder=builder), iter([False, False, False, True])
    assert not rank.open(range(64, 68), lambda: next(stops)), "it is still waited for"
    datasets = {"fa@32": rank.data.datasets["fa"]}
    barrier = DataBarrier(datasets, list, lambda: None, builder)
    with pytest.raises(BuildFailedError, match="no room left"):
        barrier.open(rank.data, range(64, 68), lambda: False)


def test_control_a_builder_that_is_slow_is_waited_for(recipe: Recipe, tmp_path: Path) -> None:
    """Three times the limit; and without a limit one that does nothing at all."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 90

    for builder, limit_s in ((Imitated(lambda looks: looks), 0.3), (Imitated(lambda _: 0), float("inf"))):
        asked.clear()
        assert not Rank(recipe, tmp_path, builder=builder, stall_limit_s=limit_s).open(range(64, 68), stop)


def test_time_in_which_the_process_was_stopped_is_no_stall(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps by an hour once. Control: without the rule the builder is blamed."""
    looks: list[int] = []
    real_s = barrier_module.time.monotonic

    def jumping_s() -> float:
        return real_s() + (3600.0 if len(looks) > 3 else 0.0)

    def stop() -> bool:
        looks.append(1)
        return len(looks) > 6

    monkeypatch.setattr(barrier_module.time, "monotonic", jumping_s)
    rank = Rank(recipe, tmp_path, builder=Imitated(lambda _: 0), stall_limit_s=60.0)
    assert not rank.open(range(64, 68), stop)
    looks.clear()
    monkeypatch.setattr(barrier_module, "LONGEST_LOOK_S", float("inf"))
    with pytest.raises(BuildStalledError):
        rank.open(range(64, 68), stop)


def test_a_failure_that_no_disk_could_take_is_raised_by_all(recipe: Recipe, tmp_path: Path) -> None:
    text = f"{tmp_path}/fa: no space left on device (0 MiB free of 9); make room"
    summed = _Sum()
    ranks = [Rank(recipe, tmp_path, summed, Imitated(lambda _: 0, fa=text)), Rank(recipe, tmp_path, summed)]
    first, second = _raised_by_both(ranks)
    assert str(first) == text and second.by_all_ranks
    assert not (tmp_path / "fa" / "failed.json").exists()


def _raised_by_both(ranks: Sequence[Rank]) -> list[BuildFailedError]:
    raised: dict[int, BuildFailedError] = {}

    def run(number: int) -> None:
        with pytest.raises(BuildFailedError) as caught:
            ranks[number].open(range(64, 68))
        raised[number] = caught.value

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(ranks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [raised[number] for number in range(len(ranks))]

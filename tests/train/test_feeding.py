"""The loop reads its sequences one micro-batch ahead: what is read when, by whom, what becomes of errors."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from persianmind.common.errors import DataError, RunInterruptedError
from persianmind.data.read.sequence import TokenSequence, build_sequence
from persianmind.engine.base import Batch, DeviceBatch, StepResult, StopLevel
from persianmind.engine.ranks import Ranks
from persianmind.recipe.loading import load_recipe
from persianmind.train.context import RunContext
from persianmind.train.loop import train_stage
from persianmind.train.stages import StagePlan

LONG_S = 30.0
SEQUENCES, STEPS = 64, 3
GLOBAL_BATCH_SIZE, MICRO_BATCH_SIZE = 4, 2


class FakeDataset:
    """Sequence i is all i. `reading[n]` is set when the n-th read begins; `gate` holds reads that it is asked
    to hold. num_sequences: None while it is being built."""

    def __init__(self, num_sequences: int | None = SEQUENCES, damaged: int | None = None) -> None:
        self.num_sequences = num_sequences
        self.read: list[int] = []
        self.readers: set[str] = set()
        self.reading = [threading.Event() for _ in range(2 * SEQUENCES)]
        self.damaged_read = damaged

    def sequence(self, index: int) -> TokenSequence:
        number = len(self.read)
        self.read.append(index)
        self.readers.add(threading.current_thread().name)
        self.reading[number].set()
        if number == self.damaged_read:
            raise DataError("shard-00000 is damaged")
        return build_sequence(np.full(8, index), np.array([5 + index % 3], dtype=np.int32), None)

    def known_sequences(self, number: int, block_sequences: int | None) -> int | None:
        return self.num_sequences

    def target_count(self, index: int) -> int:
        return 4 + index % 3


class FakeEngine:
    """Notes what it steps over. While a step's last micro-batch is in use, `during` is called."""

    def __init__(self) -> None:
        self.seen: list[list[list[int]]] = []
        self.targets: list[tuple[int | None, int]] = []
        self.during = lambda: None
        self.level = StopLevel.NONE

    def set_rates(self, rates: Any) -> None: ...

    def prepare(self, batch: Batch) -> DeviceBatch:
        return DeviceBatch(batch)

    def step(
        self,
        micro_batches: Iterable[DeviceBatch],
        stop_level: StopLevel = StopLevel.NONE,
        should_skip: Any = None,
        local_targets: int | None = None,
        sources: int = 0,
    ) -> StepResult:
        ids, counted = [], 0
        for batch in micro_batches:
            ids.append(batch.inputs["input_ids"][:, 0].tolist())
            counted += int((batch.inputs["labels"] >= 0).sum())
        self.during()
        self.seen.append(ids)
        self.targets.append((local_targets, counted))
        return StepResult(1.0, counted, 1.0, None, self.level)


class OpenBarrier:
    def open(self, *_: Any) -> bool:
        return True


def make_context(dataset: FakeDataset, engine: FakeEngine, first_step: int = 0) -> RunContext:
    recipe = load_recipe(
        "tiny",
        [
            f"train.global_batch_size={GLOBAL_BATCH_SIZE}",
            f"train.micro_batch_size={MICRO_BATCH_SIZE}",
            "data.seq_len=64",
            "data.shuffle_block_sequences=16",
        ],
    )
    stage = recipe.stages[0].model_copy(update={"sources": {"only": 1.0}})
    nothing: Any = None
    any_engine: Any = engine
    any_dataset: Any = dataset
    return RunContext(
        recipe=recipe,
        folder=nothing,
        ranks=Ranks(rank=0, world_size=1, local_rank=0, local_size=1),
        engine=any_engine,
        prepared=nothing,
        datasets={"only": any_dataset},
        plans=[StagePlan(0, stage, STEPS, 0)],
        log=nothing,
        meter=None,
        stop_requested=lambda: False,
        on_progress=lambda: None,
        step=first_step,
    )


def train(dataset: FakeDataset, engine: FakeEngine, first_step: int = 0) -> RunContext:
    context = make_context(dataset, engine, first_step)
    barrier: Any = OpenBarrier()
    train_stage(context, barrier)
    return context


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("read-ahead")]


def test_the_next_steps_first_is_read_while_the_optimizer_steps() -> None:
    """Deterministic: the step does not end before the read of the one after it has begun."""
    dataset, engine = FakeDataset(), FakeEngine()
    steps = iter(range(1, STEPS))

    def wait_for_the_next() -> None:
        if (step := next(steps, None)) is not None:
            assert dataset.reading[step * GLOBAL_BATCH_SIZE].wait(LONG_S)

    engine.during = wait_for_the_next
    train(dataset, engine)
    assert len(dataset.read) == STEPS * GLOBAL_BATCH_SIZE, "nothing past the stage, nothing twice"
    assert all(name.startswith("read-ahead") for name in dataset.readers)
    assert not threads()


def test_of_an_unfinished_source_nothing_is_read_past_the_step() -> None:
    dataset, engine = FakeDataset(num_sequences=None), FakeEngine()
    read_by_then: list[int] = []

    def look() -> None:
        assert not dataset.reading[(len(engine.seen) + 1) * GLOBAL_BATCH_SIZE].wait(0.05)
        read_by_then.append(len(dataset.read))

    engine.during = look
    train(dataset, engine)
    assert read_by_then == [GLOBAL_BATCH_SIZE * (step + 1) for step in range(STEPS)]


def test_order_and_targets_are_those_of_the_samples() -> None:
    dataset, engine = FakeDataset(), FakeEngine()
    train(dataset, engine)
    flat = [[one for part in step for one in part] for step in engine.seen]
    assert flat == [
        dataset.read[step * GLOBAL_BATCH_SIZE : (step + 1) * GLOBAL_BATCH_SIZE] for step in range(STEPS)
    ]
    assert all(len(part) == MICRO_BATCH_SIZE for step in engine.seen for part in step)
    assert all(stated == counted for stated, counted in engine.targets)


def test_a_run_that_goes_on_reads_what_the_whole_one_read() -> None:
    whole, resumed = FakeEngine(), FakeEngine()
    train(FakeDataset(), whole)
    train(FakeDataset(), resumed, first_step=1)
    assert resumed.seen == whole.seen[1:]


def test_a_damaged_shard_ends_the_run_where_it_is_needed() -> None:
    """Read ahead in the first step, it is the second that fails."""
    dataset, engine = FakeDataset(damaged=GLOBAL_BATCH_SIZE), FakeEngine()
    with pytest.raises(DataError, match="shard-00000 is damaged"):
        train(dataset, engine)
    assert len(engine.seen) == 1
    assert not threads()


def test_no_thread_outlives_a_stop() -> None:
    dataset, engine = FakeDataset(), FakeEngine()
    engine.level = StopLevel.STOP
    context = make_context(dataset, engine)
    barrier: Any = OpenBarrier()
    with pytest.raises(RunInterruptedError):
        train_stage(context, barrier)
    assert not threads()

"""Letting a step begin once its sequences are built.

Every rank sees the files change at a moment of its own, so the ranks agree before a step: none waits for data
while another waits for it in a collective, which would time out, and a stop finds all of them at one place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from persianmind.common.errors import BuildFailedError, BuildStalledError, DataError
from persianmind.common.poll import wait_until
from persianmind.data.read.batches import StageData
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.incremental import POLL_S, IncrementalDataset

LOOK_INTERVAL_S = 1.0
LINE_INTERVAL_S = 60.0
LONGEST_LOOK_S = 5.0  # a longer pause between two looks: this process was stopped
logger = logging.getLogger(__name__)


class _Agreed(StrEnum):
    """What all ranks go on to do."""

    STEP = "step"
    STOP = "stop"


class Builder(Protocol):
    """What is asked of the process that builds (data/build/service.py)."""

    @property
    def log(self) -> Path:
        """What it prints."""
        ...

    @property
    def work_done(self) -> int:
        """Changes with everything that it does."""
        ...

    def failures(self) -> dict[str, str]:
        """Why a build has failed, by its packing's name."""
        ...


class DataBarrier:
    """Holds the ranks before a step whose sequences are not built yet; costs nothing once a stage's data is
    whole.

    datasets: by the names of their packings. count: numbers of this rank -> their sums over the ranks; all
    ranks call it together. beat: called while waiting: ranks that exchange numbers do not hang. builder: on
    the rank that started it, which judges it for all; stall_limit_s: how long nothing may get done in it
    while the ranks wait.
    """

    def __init__(
        self,
        datasets: Mapping[str, TokenDataset],
        count: Callable[[Sequence[int]], list[int]],
        beat: Callable[[], None],
        builder: Builder | None = None,
        stall_limit_s: float = float("inf"),
    ) -> None:
        self._builder = builder
        self._names = {id(one): name for name, one in datasets.items()}
        self._idle = _IdleTime(stall_limit_s)
        self._unfinished = {name: one for name, one in datasets.items() if one.num_sequences is None}
        self._count = count
        self._beat = beat
        self._whole: StageData | None = None
        self._next_look_s = 0.0
        self._next_line_s = 0.0

    def open(self, data: StageData, samples: range, stop_requested: Callable[[], bool]) -> bool:
        """Returns once every rank can read every one of these samples: True. False: some rank was asked to
        stop while they were missing.

        Raises:
            BuildFailedError: the build of a source that is needed has failed, or (BuildStalledError) gets
                nothing done; all ranks raise it.
        """
        self._report_builds()
        self._idle.restart()
        if data is self._whole:
            return True
        agreed = wait_until(
            lambda: self._agree(data, samples, stop_requested),
            interval_s=POLL_S,
            while_waiting=self._wait,
        )
        return agreed is _Agreed.STEP

    def _agree(self, data: StageData, samples: range, stop_requested: Callable[[], bool]) -> _Agreed | None:
        """One exchange of all ranks; None: they wait."""
        failures = {} if self._builder is None else self._builder.failures()  # published is what came before
        missing, error = _missing(data, samples)
        judgement = None if missing is None else self._judge_builder(data, missing, failures)
        unfinished = any(data.datasets[name].num_sequences is None for name in data.mixture.counts)
        waiting, unfinished_anywhere, stopping, failed, judged = self._count(
            [missing is not None, unfinished, stop_requested(), error is not None, judgement is not None]
        )
        if judged:
            raise judgement or BuildFailedError("the build failed; rank 0 says why")
        if failed:  # all ranks at once: one left behind in an exchange would only report a lost peer
            raise error or _failure(data)
        if not unfinished_anywhere:
            self._whole = data
        if not waiting:
            return _Agreed.STEP
        if stopping:
            return _Agreed.STOP
        if missing is not None:
            self._report_waiting(missing, len(data.datasets[missing]))
        return None

    def _judge_builder(
        self, data: StageData, missing: str, failures: Mapping[str, str]
    ) -> BuildFailedError | None:
        """Why the ranks would wait for this source in vain, as far as the builder's own rank knows."""
        if self._builder is None:
            return None
        if (failure := failures.get(self._names[id(data.datasets[missing])])) is not None:
            return BuildFailedError(failure)
        if (idle_s := self._idle.seconds(self._builder.work_done)) is None:
            return None
        return BuildStalledError(
            f"the process that builds sources.{missing} got nothing done for {idle_s:.0f} s "
            f"(train.hang_timeout_s); look at its log, {self._builder.log}, and at the storage of the "
            "source, then run the same command: it goes on from the last whole shard"
        )

    def _wait(self) -> None:
        self._beat()
        self._report_builds()

    def _report_waiting(self, missing: str, sequences: int) -> None:
        if time.monotonic() < self._next_line_s:
            return
        self._next_line_s = time.monotonic() + LINE_INTERVAL_S
        logger.info("data: waiting for %s, of which %s sequences are built", missing, f"{sequences:,}")

    def _report_builds(self) -> None:
        """Says what became of builds since, of later stages too."""
        if not self._unfinished or time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + LOOK_INTERVAL_S
        failures = {} if self._builder is None else self._builder.failures()
        for name, dataset in list(self._unfinished.items()):
            dataset.refresh()
            failure = dataset.failure if isinstance(dataset, IncrementalDataset) else None
            failure = failure or failures.get(name)
            if dataset.num_sequences is not None:
                logger.info("data: %s is whole, %s sequences", name, f"{dataset.num_sequences:,}")
            elif failure is not None:
                logger.info("data: %s failed, training goes on as far as its sequences do: %s", name, failure)
            else:
                continue
            del self._unfinished[name]


class _IdleTime:
    """How long a number has not changed. Time in which this process itself was stopped does not count."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.restart()

    def restart(self) -> None:
        self._number, self._idle_s, self._looked_s = -1, 0.0, time.monotonic()

    def seconds(self, number: int) -> float | None:
        """None up to the limit."""
        now_s = time.monotonic()
        self._idle_s += min(now_s - self._looked_s, LONGEST_LOOK_S)
        self._looked_s = now_s
        if number != self._number:
            self._number, self._idle_s = number, 0.0
        return self._idle_s if self._idle_s > self._limit_s else None


def _missing(data: StageData, samples: range) -> tuple[str | None, DataError | None]:
    """(a source that is still to be waited for, why that would be in vain)."""
    try:
        return data.missing(samples), None
    except DataError as error:
        return None, error


def _failure(data: StageData) -> DataError:
    """What another rank has seen before this one did."""
    for name in data.mixture.counts:
        dataset = data.datasets[name]
        dataset.refresh()
        if isinstance(dataset, IncrementalDataset) and dataset.failure is not None:
            return BuildFailedError(dataset.failure)
    return DataError("another rank cannot read its data; it says why")

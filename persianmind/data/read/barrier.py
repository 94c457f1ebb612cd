"""Letting a step begin once its sequences are built.

Every rank sees the files change at a moment of its own, so the ranks agree before a step: none waits for data
while another waits for it in a collective, which would time out, and a stop finds all of them at one place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from persianmind.common.errors import BuildFailedError, DataError
from persianmind.common.poll import wait_until
from persianmind.data.read.batches import StageData
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.incremental import POLL_S, IncrementalDataset

LOOK_INTERVAL_S = 1.0
LINE_INTERVAL_S = 60.0
logger = logging.getLogger(__name__)


class _Agreed(StrEnum):
    """What all ranks go on to do."""

    STEP = "step"
    STOP = "stop"


class DataBarrier:
    """Holds the ranks before a step whose sequences are not built yet; costs nothing once a stage's data is
    whole.

    count: numbers of this rank -> their sums over the ranks; all ranks call it together. beat: called
    while waiting, which is no hang.
    """

    def __init__(
        self,
        datasets: Mapping[str, TokenDataset],
        count: Callable[[Sequence[int]], list[int]],
        beat: Callable[[], None],
    ) -> None:
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
            BuildFailedError: the build of a source that is needed has failed; all ranks raise it.
        """
        self._report_builds()
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
        missing, error = _missing(data, samples)
        unfinished = any(data.datasets[name].num_sequences is None for name in data.mixture.counts)
        waiting, unfinished_anywhere, stopping, failed = self._count(
            [missing is not None, unfinished, stop_requested(), error is not None]
        )
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
        for name, dataset in list(self._unfinished.items()):
            dataset.refresh()
            failure = dataset.failure if isinstance(dataset, IncrementalDataset) else None
            if dataset.num_sequences is not None:
                logger.info("data: %s is whole, %s sequences", name, f"{dataset.num_sequences:,}")
            elif failure is not None:
                logger.info("data: %s failed, training goes on as far as its sequences do: %s", name, failure)
            else:
                continue
            del self._unfinished[name]


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

"""The watch over preparation, which rank 0 does alone while the others wait: whether it still gets somewhere.

No process group is there yet; the ranks have the run folder alone, and rank 0's heartbeat in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from persianmind.common.errors import HangError, RankUnreachableError
from persianmind.engine.ranks import Ranks, meeting_place
from persianmind.run.folder import RunFolder
from persianmind.run.records import Heartbeat
from persianmind.train.callbacks.watchdog import TICKS_OF_SILENCE, TICKS_TO_THE_END, Watchdog, tick_s
from persianmind.train.heartbeats import describe_rank, heartbeat_path, read_heartbeat

LEAST_TIMEOUT_S = 120.0
LOOK_INTERVAL_S = 1.0
SUSPENDED_S = 10.0  # a longer pause between two looks: this process itself was stopped
MAX_REASON_CHARACTERS = 600


def preparation_timeout_s(hang_timeout_s: float) -> float:
    """Seconds without progress after which preparation, or a builder beside training, is taken for stuck:
    imports and conversions count no work."""
    return max(LEAST_TIMEOUT_S, hang_timeout_s)


@contextmanager
def watched_preparation(
    folder: RunFolder, ranks: Ranks, timeout_s: float, wait_frames: Sequence[str]
) -> Iterator[Watchdog]:
    """Rank 0's side, around all that it prepares: writes its heartbeat, and ends the process where nothing
    gets done for `timeout_s`. The watchdog's `preparing` is what is being prepared.

    An error stands in the heartbeat for some ticks: a launcher ends the ranks of its own node alone.
    """
    watchdog = Watchdog(folder, replace(ranks, world_size=1), timeout_s, wait_frames)
    watchdog.preparing = "the run"
    with watchdog:
        try:
            yield watchdog
        except Exception as error:
            watchdog.failed = " ".join(str(error).split())[:MAX_REASON_CHARACTERS] or type(error).__name__
            if ranks.world_size > ranks.local_size:
                time.sleep(TICKS_TO_THE_END * watchdog.tick_s)
            raise


class PreparationWatch:
    """The other ranks' side: `check` is called while they wait.

    What lies there at the first look may be of an earlier attempt: rank 0 is alive once it changes.
    """

    def __init__(self, folder: RunFolder, timeout_s: float) -> None:
        self._folder, self._timeout_s = folder, timeout_s
        self._path = heartbeat_path(folder.heartbeats, 0)
        self._first = read_heartbeat(self._path)
        self._beat: Heartbeat | None = None
        self._looked_s = self._changed_s = self._progressed_s = time.monotonic()

    def progressed_s(self) -> float:
        """When rank 0 was last seen to make progress, by `time.monotonic`; the begin of the wait before.

        Raises:
            RankUnreachableError: it could not prepare.
        """
        self._look()
        return self._progressed_s

    def check(self) -> None:
        """Takes a look at rank 0.

        Raises:
            RankUnreachableError: it could not prepare, or gave no sign of life for the timeout.
            HangError: it is alive, and got nothing done for as long.
        """
        self._look()
        quiet_s = time.monotonic() - self._progressed_s
        if quiet_s <= self._timeout_s:
            return
        since = f"for {quiet_s:.0f} s (train.hang_timeout_s)"
        if self._beat is None:
            raise RankUnreachableError(
                f"rank 0 (of {meeting_place()}), which prepares {self._folder}, gave no sign of life "
                f"{since}; look at its process and its log"
            )
        if time.monotonic() - self._changed_s > TICKS_OF_SILENCE * tick_s(self._timeout_s) + LOOK_INTERVAL_S:
            raise RankUnreachableError(
                f"{describe_rank(0, self._beat)} made no progress {since} and gives no sign of life; look at "
                "its process and its log"
            )
        raise HangError(
            f"{describe_rank(0, self._beat)} made no progress {since}; it stands at {self._beat.where}"
        )

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s > SUSPENDED_S:
            self._progressed_s = now_s
        elif now_s - self._looked_s < LOOK_INTERVAL_S:
            return
        self._looked_s = now_s
        beat = read_heartbeat(self._path)
        if beat is None or beat == (self._beat or self._first) or beat.launch != meeting_place():
            return
        before, self._beat, self._changed_s = self._beat, beat, now_s
        if before is None or (before.beats, before.preparing) != (beat.beats, beat.preparing):
            self._progressed_s = now_s
        if beat.failed:
            raise RankUnreachableError(f"{describe_rank(0, beat)} failed: {beat.failed}")

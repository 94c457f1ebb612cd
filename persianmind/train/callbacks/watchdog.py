"""Ends a run that makes no progress, and says which rank keeps the others waiting.

Every rank writes a small heartbeat into the run folder: how often it made progress, and where it stands. A
rank inside a collective only waits for others, so when nobody makes progress any more, the one that stands
somewhere else, or gives no sign of life at all, is the cause. The reading and writing has a thread of its
own: storage that hangs is one of the things to be noticed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from persianmind.common.checksum import dump_checked_line
from persianmind.common.errors import HangError
from persianmind.engine.ranks import Ranks
from persianmind.run.folder import RunFolder
from persianmind.run.records import Heartbeat, parse_record
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext

MAX_TICK_S = 5.0
TICKS_TO_THE_END = 3
STOPPED_S = 1.0
TICKS_OF_SILENCE = 3  # a rank whose heartbeat does not change for this many gives no sign of life
SAVE_THREAD, WAITS_FOR_SAVE = "checkpoint-", "checkpoint/background.py"
logger = logging.getLogger(__name__)


@dataclass
class _Seen:
    """The last heartbeat of one rank, and when (on our clock) it last changed."""

    beat: Heartbeat
    changed_s: float


class Watchdog(Callback):
    """Also a context manager around everything the ranks do together, model building included.

    `beat` is called wherever this rank makes progress. When no rank has for `timeout_s`, each says so in one
    line and ends its process (`end`) a few ticks later, so that all of them have spoken before the first is
    missed by the others. wait_frames: parts of file names; a thread below such a frame waits for other ranks.
    """

    name = "watchdog"

    def __init__(
        self,
        folder: RunFolder,
        ranks: Ranks,
        timeout_s: float,
        wait_frames: Sequence[str],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self.folder = folder.heartbeats
        self.ranks = ranks
        self.timeout_s = timeout_s
        self.tick_s = min(MAX_TICK_S, timeout_s / 10)
        self._wait_frames = tuple(wait_frames)
        self._end = end
        self._monitoring: threading.Thread | None = None
        self._fired = False
        self._watched = threading.main_thread()
        self._beats = self._ticks = 0
        self._seen: dict[int, _Seen] = {}
        self._progress_s = time.monotonic()  # when some rank was last seen to make progress
        self._over = threading.Event()

    def beat(self) -> None:
        """This rank made progress."""
        self._beats += 1

    def before_step(self, context: RunContext) -> None:
        self.beat()

    def watch(self) -> None:
        """Begins to write, read and monitor."""
        self._progress_s = time.monotonic()
        self._monitoring = threading.Thread(target=self._monitor, name="watchdog-monitor", daemon=True)
        for thread in (threading.Thread(target=self._exchange, daemon=True), self._monitoring):
            thread.start()

    def __enter__(self) -> Self:
        self.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fired and self._monitoring is not None:
            # An error here comes from ranks that ended already; the watchdog said why.
            self._monitoring.join()
        self._over.set()

    def _exchange(self) -> None:
        while not self._over.wait(self.tick_s):
            try:
                self._write()
                self._read()
            except OSError:
                continue  # a rank that cannot write is one that gives no sign of life

    def _write(self) -> None:
        self._ticks += 1
        where, waits = current_frame(self._watched, self._wait_frames)
        beat = Heartbeat(
            tick=self._ticks,
            pid=os.getpid(),
            node=self.ranks.node,
            beats=self._beats,
            where=where,
            waits=waits,
        )
        self.folder.mkdir(exist_ok=True)
        self._path(self.ranks.rank).write_text(dump_checked_line(beat.model_dump()), encoding="utf-8")

    def _read(self) -> None:
        now_s = time.monotonic()
        for rank in self._all_ranks():
            try:
                beat = parse_record(self._path(rank).read_bytes(), Heartbeat)
            except OSError:
                beat = None
            if beat is None:
                continue  # not there yet, or just being written
            before = self._seen.get(rank)
            if before is None or before.beat.beats != beat.beats:
                self._progress_s = now_s
            if before is None or before.beat != beat:
                self._seen[rank] = _Seen(beat, now_s)

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.json"

    def _monitor(self) -> None:
        own, own_s, looked_s = self._beats, time.monotonic(), time.monotonic()
        while not self._over.wait(self.tick_s):
            # A process that was itself stopped for a while (a suspended job) knows nothing of that time.
            was_stopped = time.monotonic() - looked_s > self.tick_s + STOPPED_S
            looked_s = time.monotonic()
            if self._beats != own or was_stopped:
                own, own_s = self._beats, looked_s
            quiet_s = time.monotonic() - max(own_s, self._progress_s)
            if quiet_s > self.timeout_s:
                self._fired = True
                stalled = self._stalled_ranks()
                logger.error(f"no rank made progress for {quiet_s:.0f} s (train.hang_timeout_s): {stalled}")
                time.sleep(TICKS_TO_THE_END * self.tick_s)
                self._end(HangError.exit_code)
                return

    def _stalled_ranks(self) -> str:
        """Who keeps the others waiting, and where."""
        now_s = time.monotonic()
        silence_s = TICKS_OF_SILENCE * self.tick_s
        silent = [rank for rank in self._all_ranks() if now_s - self._changed_s(rank) > silence_s]
        if self.ranks.rank in silent:
            return f"the heartbeats in {self.folder} cannot be written or read; does that storage hang?"
        if silent:
            return "; ".join(f"{self._describe(rank)} gives no sign of life" for rank in silent)
        busy = [rank for rank in self._all_ranks() if not self._seen[rank].beat.waits]
        if busy:
            return "; ".join(
                f"{self._describe(rank)} stands at {self._seen[rank].beat.where}" for rank in busy
            )
        places = {self._seen[rank].beat.where for rank in self._all_ranks()}
        return f"every rank waits for the others (at {', '.join(sorted(places))}); does the network work?"

    def _all_ranks(self) -> range:
        return range(self.ranks.world_size)

    def _changed_s(self, rank: int) -> float:
        return self._seen[rank].changed_s if rank in self._seen else float("-inf")

    def _describe(self, rank: int) -> str:
        beat = self._seen[rank].beat if rank in self._seen else None
        return f"rank {rank}" + (f" (pid {beat.pid} on {beat.node})" if beat else "")


def current_frame(thread: threading.Thread, wait_frames: Sequence[str]) -> tuple[str, bool]:
    """("file:line function" of the innermost frame, whether it waits for other ranks) of a thread; where it
    waits for a save, of the thread that saves."""
    frames = sys._current_frames()
    stack = _stack(frames.get(thread.ident or 0))
    if any(WAITS_FOR_SAVE in frame.f_code.co_filename for frame in stack):
        saver = next((t for t in threading.enumerate() if t.name.startswith(SAVE_THREAD)), None)
        stack = _stack(frames.get(saver.ident or 0)) if saver is not None else stack
    if not stack:
        return "nowhere (the thread has ended)", False
    waits = any(part in frame.f_code.co_filename for frame in stack for part in wait_frames)
    last = stack[0]
    name = "/".join(Path(last.f_code.co_filename).parts[-2:])
    return f"{name}:{last.f_lineno} {last.f_code.co_name}", waits


def _stack(frame: FrameType | None) -> list[FrameType]:
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack

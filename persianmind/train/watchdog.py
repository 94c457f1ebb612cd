"""Ends a run that stands still, and says which rank keeps the others waiting.

Every rank writes a small heartbeat into the run folder: how often it got on, and where it stands. A rank
inside a collective only waits for others, so when nobody gets on any more, the one that stands somewhere
else, or gives no sign of life at all, is the cause. The reading and writing has a thread of its own: storage
that hangs is one of the things to be noticed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from persianmind.common.console import print_line
from persianmind.common.errors import HangError
from persianmind.engine.ranks import Ranks

FOLDER = "heartbeats"
MAX_TICK_S = 5.0
TICKS_TO_THE_END = 3
STOPPED_S = 1.0
TICKS_OF_SILENCE = 3  # a rank whose heartbeat does not change for so many ticks gives no sign of life
# Frames below which a thread waits for other ranks.
COLLECTIVES = ("torch/distributed/", "deepspeed/comm/")
# A GPU's collective returns at once; the thread then waits where it reads the value.
READS_OF_VALUES = {"count_over_ranks", "_sum_over_ranks"}
SAVE_THREAD, WAITS_FOR_SAVE = "checkpoint-", "checkpoint/background.py"


@dataclass
class _Seen:
    """The last heartbeat of one rank, and when (on our clock) it last changed."""

    beat: dict[str, Any]
    changed_s: float


class Watchdog:
    """Context manager around everything the ranks do together; `beat` is called wherever one gets on.

    When no rank has got on for `timeout_s`, each says so in one line (`say`) and ends its process (`end`) a
    few ticks later, so that all of them have spoken before the first is missed by the others.
    """

    def __init__(
        self,
        run: Path,
        ranks: Ranks,
        timeout_s: float,
        say: Callable[[str], None] | None = None,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self.folder = run / FOLDER
        self.ranks = ranks
        self.timeout_s = timeout_s
        self.tick_s = min(MAX_TICK_S, timeout_s / 10)
        self._say = say or _say
        self._end = end
        self._monitoring: threading.Thread | None = None
        self._fired = False
        self._watched = threading.main_thread()
        self._beats = self._ticks = 0
        self._seen: dict[int, _Seen] = {}
        self._progress_s = time.monotonic()  # when some rank was last seen to get on
        self._over = threading.Event()

    def beat(self) -> None:
        """This rank got on."""
        self._beats += 1

    def start(self) -> None:
        """Begins to write, read and judge."""
        self._progress_s = time.monotonic()
        self._monitoring = threading.Thread(target=self._monitor, name="watchdog-monitor", daemon=True)
        for thread in (threading.Thread(target=self._exchange, daemon=True), self._monitoring):
            thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fired and self._monitoring is not None:
            # an error here comes from ranks that ended already; the watchdog said why
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
        where, waits = current_frame(self._watched)
        beat = {"tick": self._ticks, "pid": os.getpid(), "node": self.ranks.node, "beats": self._beats}
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"rank-{self.ranks.rank}.json"
        path.write_text(json.dumps({**beat, "where": where, "waits": waits}), encoding="utf-8")

    def _read(self) -> None:
        now_s = time.monotonic()
        for rank in range(self.ranks.world_size):
            try:
                beat = json.loads((self.folder / f"rank-{rank}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # not there yet, or just being written
            before = self._seen.get(rank)
            if before is None or before.beat.get("beats") != beat.get("beats"):
                self._progress_s = now_s
            if before is None or before.beat != beat:
                self._seen[rank] = _Seen(beat, now_s)

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
                self._say(
                    f"no rank got on for {quiet_s:.0f} s (train.hang_timeout_s): {self._stalled_ranks()}"
                )
                time.sleep(TICKS_TO_THE_END * self.tick_s)
                self._end(HangError.exit_code)
                return

    def _stalled_ranks(self) -> str:
        """Who keeps the others waiting, and where."""
        now_s = time.monotonic()
        silence_s = TICKS_OF_SILENCE * self.tick_s
        silent = [r for r in self._all_ranks() if now_s - self._changed_s(r) > silence_s]
        if self.ranks.rank in silent:
            return f"the heartbeats in {self.folder} cannot be written or read; does that storage hang?"
        if silent:
            return "; ".join(f"{self._name(rank)} gives no sign of life" for rank in silent)
        busy = [rank for rank in self._all_ranks() if not self._seen[rank].beat["waits"]]
        if busy:
            return "; ".join(f"{self._name(r)} stands at {self._seen[r].beat['where']}" for r in busy)
        places = {self._seen[rank].beat["where"] for rank in self._all_ranks()}
        return f"every rank waits for the others (at {', '.join(sorted(places))}); does the network work?"

    def _all_ranks(self) -> Iterable[int]:
        return range(self.ranks.world_size)

    def _changed_s(self, rank: int) -> float:
        return self._seen[rank].changed_s if rank in self._seen else float("-inf")

    def _name(self, rank: int) -> str:
        beat = self._seen[rank].beat if rank in self._seen else None
        return f"rank {rank}" + (f" (pid {beat['pid']} on {beat['node']})" if beat else "")


def current_frame(thread: threading.Thread) -> tuple[str, bool]:
    """("file:line function" of the innermost frame, whether it waits for other ranks) of a thread; where it
    waits for a save, of the thread that saves."""
    frames = sys._current_frames()
    stack = _stack(frames.get(thread.ident or 0))
    if any(WAITS_FOR_SAVE in frame.f_code.co_filename for frame in stack):
        saver = next((t for t in threading.enumerate() if t.name.startswith(SAVE_THREAD)), None)
        stack = _stack(frames.get(saver.ident or 0)) if saver is not None else stack
    if not stack:
        return "nowhere (the thread has ended)", False
    waits = any(_waits(frame) for frame in stack)
    last = stack[0]
    name = "/".join(Path(last.f_code.co_filename).parts[-2:])
    return f"{name}:{last.f_lineno} {last.f_code.co_name}", waits


def _waits(frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_name in READS_OF_VALUES or any(part in code.co_filename for part in COLLECTIVES)


def _stack(frame: FrameType | None) -> list[FrameType]:
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def _say(line: str) -> None:
    print_line(f"persianmind: error: {line}", sys.stderr)

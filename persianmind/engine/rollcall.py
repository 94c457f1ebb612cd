"""The start-up exchange: every rank proves that the others reach it, before anything waits for it for long.

A rank that never starts, stands still or sits behind a firewall would otherwise be noticed by a collective's
timeout, half an hour later and without a name. Each rank writes who it is and a heartbeat into the key-value
store that the process group is made with, and reads those of the others. The store's own calls have no end
where the process that hosts it (rank 0) is stopped, so they run in a thread of their own; whoever waits looks
at what that thread has noted down.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from persianmind.common.errors import MachineError, RankUnreachableError
from persianmind.common.poll import wait_until
from persianmind.engine.presence import Presence, check_agreement
from persianmind.engine.ranks import meeting_place
from persianmind.engine.rendezvous import store_listener

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

PREFIX = "persianmind/start"
# How long a rank may take from rank 0's coming until it is there, and all of them to exchange one number.
START_LIMIT_S = 120.0
# Ranks of one machine come apart by the time of their imports: many seconds where the machine is busy.
LEAST_LIMIT_S = 60.0
TICK_S = 0.5
TICKS_OF_SILENCE = 6
TICKS_TO_THE_END = 4
logger = logging.getLogger(__name__)


def start_limit_s(hang_timeout_s: float) -> float:
    """Seconds a start may take, for a run that calls its ranks hung after `hang_timeout_s`."""
    return max(LEAST_LIMIT_S, min(START_LIMIT_S, hang_timeout_s))


def open_store(*, host: bool, timeout_s: float) -> TCPStore:
    """The store at MASTER_ADDR:MASTER_PORT; a client waits this long for its host."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(
        address,
        port,
        None,
        host,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=store_listener(address, port) if host else None,
    )


class RollCall:
    """`gather` waits until every rank is there; as a context manager it watches over what they then do.

    limit_s: how long, once rank 0 is there. patience_s: how long a rank waits for rank 0, which may still be
    preparing the run, after its last progress. progressed_s: when (on our clock) that was, as far as this
    rank knows. end: what ends the process when the exchange inside the context takes longer than `limit_s`;
    the main thread stands in it.
    """

    def __init__(
        self,
        own: Presence,
        world_size: int,
        limit_s: float = START_LIMIT_S,
        patience_s: float = 1800.0,
        tick_s: float = TICK_S,
        end: Callable[[int], None] = os._exit,
        progressed_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.own, self.world_size, self.limit_s = own, world_size, limit_s
        self._progressed_s = progressed_s
        self._patience_s, self._tick_s, self._end = max(patience_s, limit_s), tick_s, end
        self._present: dict[int, Presence] = {}
        self._beats: dict[int, tuple[str, float]] = {}  # by rank, and when (on our clock) it last changed
        self._opened_s: float | None = None  # when rank 0 was seen to be there
        self._answered_s = time.monotonic()  # when the store answered last
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._exchange, name="roll-call", daemon=True)

    def gather(self) -> list[Presence]:
        """Waits until all are there and agree; what each says, in rank order.

        Raises:
            RankUnreachableError: some did not come in time; the line names them.
            MachineError: they are not set up alike.
        """
        self._thread.start()
        try:
            self._wait()
            found = [self._present[rank] for rank in range(self.world_size)]
            check_agreement(found)
        except MachineError:
            if self.own.rank == 0 and self.world_size > 1:
                time.sleep(TICKS_TO_THE_END * self._tick_s)  # the others read the same from rank 0's store
            self._over.set()
            raise
        except RankUnreachableError:
            self._over.set()
            raise
        return found

    def _wait(self) -> None:
        began_s, warned = time.monotonic(), False
        while len(self._present) < self.world_size:
            waited_s = time.monotonic() - (self._opened_s or max(began_s, self._progressed_s()))
            if waited_s > self.limit_s and self._opened_s is not None:
                raise self._error(f"the start waited {waited_s:.0f} s for {self._absent()}")
            if waited_s > self.limit_s and not warned:
                warned = True
                logger.warning(
                    f"{self.own} has waited {waited_s:.0f} s for rank 0 {_place()}, which may be busy"
                )
            if waited_s > self._patience_s:
                raise self._error(f"rank 0 {_place()} was not reached in {waited_s:.0f} s by {self.own}")
            time.sleep(self._tick_s / 4)

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="roll-call-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RuntimeError):
            # A rank that died broke the exchange for all. Errors of NCCL and memory have lines of their own.
            self._find_silent()
            self._over.set()
            if self._silent() or "gloo" in str(error):
                reason = " ".join(str(error).split())[:300]
                raise self._error(f"the ranks could not be joined: {self._stuck()} ({reason})") from error
        self._over.set()

    def _exchange(self) -> None:
        try:
            store = self._find_store()
            self._answered_s = time.monotonic()
            store.set(f"{PREFIX}/{self.own.rank}", json.dumps(asdict(self.own)))
            beats = 0
            while not self._over.wait(self._tick_s):
                beats += 1
                store.set(f"{PREFIX}/alive/{self.own.rank}", str(beats))
                for rank in range(self.world_size):
                    self._read(store, rank)
                self._answered_s = time.monotonic()
        except RuntimeError:  # torch's errors of the network: rank 0's process has ended
            return

    def _find_store(self) -> TCPStore:
        while True:
            try:
                return open_store(host=False, timeout_s=self._patience_s)
            except RuntimeError:  # not there yet; `_wait` knows how long that may take
                if self._over.is_set():
                    raise

    def _read(self, store: TCPStore, rank: int) -> None:
        key, alive = f"{PREFIX}/{rank}", f"{PREFIX}/alive/{rank}"
        if rank not in self._present and store.check([key]):
            self._present[rank] = Presence(**json.loads(store.get(key)))
            self._beats[rank] = ("", time.monotonic())  # to have come is a sign of life as well
            if rank == 0:
                self._opened_s = time.monotonic()
        if store.check([alive]):
            beat = store.get(alive).decode()
            if self._beats.get(rank, ("", 0.0))[0] != beat:
                self._beats[rank] = (beat, time.monotonic())

    def _watch(self) -> None:
        if self._over.wait(self.limit_s):
            return
        self._find_silent()
        if self._over.is_set():  # they came through after all
            return
        line = f"the ranks could not exchange one number in {self.limit_s:.0f} s: {self._stuck()}"
        error = self._error(line)
        if self.own.rank == 0 or not error.by_all_ranks:
            logger.error(str(error))
        time.sleep(TICKS_TO_THE_END * self._tick_s)  # the others read from rank 0's store who was silent
        self._end(RankUnreachableError.exit_code)

    def _find_silent(self) -> None:
        """Waits for as long as a rank that has just ended takes to be noticed."""
        wait_until(self._silent, timeout_s=(TICKS_OF_SILENCE + 2) * self._tick_s, interval_s=self._tick_s / 2)

    def _host_is_silent(self) -> bool:
        return time.monotonic() - self._answered_s > TICKS_OF_SILENCE * self._tick_s

    def _silent(self) -> list[int]:
        """Ranks without a sign of life; of the others nothing is known while rank 0 does not answer."""
        if self._host_is_silent():
            return [0]
        line_s = time.monotonic() - TICKS_OF_SILENCE * self._tick_s
        return [rank for rank in range(self.world_size) if self._beats.get(rank, ("", 0.0))[1] < line_s]

    def _stuck(self) -> str:
        if silent := self._silent():
            return f"{self._names(silent)} gives no sign of life"
        return "every process is alive, but the network or the path between the GPUs lets nothing through"

    def _absent(self) -> str:
        if self._host_is_silent():
            return f"{self._name(0)}, which does not answer"
        return f"{self._names(sorted(set(range(self.world_size)) - set(self._present)))}, which did not come"

    def _names(self, ranks: list[int]) -> str:
        return ", ".join(self._name(rank) for rank in ranks)

    def _name(self, rank: int) -> str:
        """As it said itself, or as a rank of its node makes likely."""
        if rank in self._present:
            return str(self._present[rank])
        for one in self._present.values():
            first = one.rank - one.local_rank
            if first <= rank < first + one.local_size:
                devices = one.node_devices
                device = f"{devices[rank - first]} on " if rank - first < len(devices) else "on "
                return f"rank {rank} ({device}{one.node})"
        return f"rank {rank} (no rank of its node came)"

    def _error(self, line: str) -> RankUnreachableError:
        error = RankUnreachableError(
            f"{line}; look at that process and its log, then at the network between the nodes "
            f"(NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME name the interface; no firewall {_place()} nor on "
            "other ports); NCCL_DEBUG=INFO says where NCCL stands"
        )
        # Rank 0 sees the same and says it for all, as long as it is alive.
        error.by_all_ranks = self._opened_s is not None and not self._host_is_silent()
        return error


def _place() -> str:
    return f"at {meeting_place()}"

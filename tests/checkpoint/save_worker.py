"""Saves step 10, then step 20, and dies by kill -9 at one place of the second save.

    python save_worker.py ROOT WORLD_SIZE RANK_THAT_DIES PLACE [unguarded]

PLACE is one of store.PHASES, "mid-write" (half of a file is on disk), "mid-removal" (retention has begun to
remove step 10), or "never". Ranks are forked processes that talk over sockets, so a dead one is really gone.
With "unguarded" a save writes straight into its final folder: the negative control.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from persianmind.checkpoint import retention, store
from tests.checkpoint.helpers import make_store, write_contents


class SocketGroup:
    """Two ranks over a socket pair; alone without one."""

    def __init__(self, rank: int, world_size: int, peer: socket.socket) -> None:
        self.rank, self.world_size = rank, world_size
        # Two files: one for both directions would drop what it had read ahead at the next write.
        self._from_peer, self._to_peer = peer.makefile("r"), peer.makefile("w")

    def all_gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        self._to_peer.write(json.dumps(value) + "\n")
        self._to_peer.flush()
        line = self._from_peer.readline()
        if not line:
            raise ConnectionError("the other rank is gone")
        other = json.loads(line)
        return [value, other] if self.rank == 0 else [other, value]


def die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def work(root: Path, group: SocketGroup, dying: bool, place: str) -> None:
    armed = False

    def on_phase(phase: str) -> None:
        if armed and dying and phase == place:
            die()

    def write(folder: Path) -> None:
        if group.rank == 0:
            write_contents(20)(folder)
        own = folder / f"rank-{group.rank}.bin"
        own.write_bytes(b"half")
        if dying and place == "mid-write":
            die()
        own.write_bytes(b"half and half")

    keeper = make_store(root, keep_last=1 if place == "mid-removal" else 2, on_phase=on_phase)
    keeper.save(10, {"step": 10}, write_contents(10) if group.rank == 0 else lambda _: None, group)
    armed = True
    if dying and place == "mid-removal":
        retention.shutil.rmtree = die  # type: ignore[assignment]
    keeper.save(20, {"step": 20}, write, group)


def main() -> None:
    root, world_size, dying_rank, place = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if sys.argv[5:] == ["unguarded"]:
        store.TEMPORARY = ""
    ends = socket.socketpair()
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            ends[1 - rank].close()
            try:
                work(root, SocketGroup(rank, world_size, ends[rank]), rank == dying_rank, place)
            except ConnectionError:
                os._exit(3)  # as a rank whose peer died ends in a real run
            os._exit(0)
        children.append(child)
    for end in ends:
        end.close()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes))


if __name__ == "__main__":
    main()

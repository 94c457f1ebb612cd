"""How the meter's process and the training process talk, and the lock that keeps it one meter a node."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


class Marks:
    """JSON lines from a pipe, without ever blocking past a timeout.

    `open` turns False when the pipe closes or says {"stop": seconds of the monotonic clock}; `stopped_s`
    tells the second from a parent that is gone.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.open = True
        self.stopped_s: float | None = None
        self._rest = b""

    def wait(self, timeout_s: float) -> list[dict[str, Any]]:
        """The marks that came within `timeout_s`; returns as soon as there are any."""
        if not self.open:
            return []
        ready, _, _ = select.select([self.descriptor], [], [], timeout_s)
        if not ready:
            return []
        block = os.read(self.descriptor, 1 << 16)
        if not block:
            self.open = False
            return []
        *lines, self._rest = (self._rest + block).split(b"\n")
        messages = [json.loads(line) for line in lines if line]
        for message in messages:
            if "stop" in message:
                self.open, self.stopped_s = False, float(message["stop"])
        return [message for message in messages if "stop" not in message]


def lock_node(run: Path, node: str) -> IO[bytes] | None:
    """The right to count this node for this run, or None while another meter holds it.

    The lock goes with the process, so a killed meter leaves none behind.
    """
    path = run / "energy" / f".{node}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def say_on(descriptor: int) -> Callable[[dict[str, Any]], None]:
    """Messages to the parent: lines below PIPE_BUF, so whole; dropped when the parent does not read."""
    os.set_blocking(descriptor, False)

    def say(message: dict[str, Any]) -> None:
        if "message" in message:
            message = {"message": str(message["message"])[:500]}
        with contextlib.suppress(OSError):  # full, or the parent is gone: `run` notices the latter by itself
            os.write(descriptor, json.dumps(message).encode() + b"\n")

    return say

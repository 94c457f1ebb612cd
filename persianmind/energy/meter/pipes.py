"""How the meter's process and the training process talk: JSON lines over two pipes, none of which blocks."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from persianmind.run.records import Phase

# The GPUs to count, written as in CUDA_VISIBLE_DEVICES, where the process that starts the meter sees fewer.
NODE_GPUS = "PERSIANMIND_NODE_GPUS"
MAX_MESSAGE_CHARACTERS = 500  # a line stays below PIPE_BUF, so that it is written whole or not at all


@dataclass(frozen=True, slots=True)
class Mark:
    """What follows `at_s` (monotonic) belongs to this phase, stage and step. resumed_step: the last step that
    a checkpoint just loaded holds."""

    phase: Phase
    stage: str
    step: int
    at_s: float
    resumed_step: int | None = None

    def dump(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, content: dict[str, Any]) -> Mark:
        """From a line's content."""
        return cls(**{**content, "phase": Phase(content["phase"])})


def dump_stop(at_s: float) -> bytes:
    """The line that ends the meter; `at_s` (monotonic): when the run ended."""
    return json.dumps({"stop": at_s}).encode() + b"\n"


class Marks:
    """Marks from a pipe, without ever blocking past a timeout.

    `open` turns False when the pipe closes or a stop line comes; `stopped_s` tells the second from a parent
    that is gone.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.open = True
        self.stopped_s: float | None = None
        self._rest = b""

    def wait(self, timeout_s: float) -> list[Mark]:
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
        return [Mark.parse(message) for message in messages if "stop" not in message]


Send = Callable[[dict[str, Any]], None]


def sender(descriptor: int) -> Send:
    """What sends {"joules": running total} or {"message": text, "serious": bool} to the parent; a line is
    dropped when the parent does not read."""
    os.set_blocking(descriptor, False)

    def send(message: dict[str, Any]) -> None:
        if "message" in message:
            message = {**message, "message": str(message["message"])[:MAX_MESSAGE_CHARACTERS]}
        with contextlib.suppress(OSError):  # full, or the parent is gone: `Sampler.run` notices the latter
            os.write(descriptor, json.dumps(message).encode() + b"\n")

    return send

"""TensorBoard's event files, beside metrics.jsonl: a convenience that never ends a run."""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persianmind.common.atomic import append_bytes

logger = logging.getLogger(__name__)


class EventFile:
    """The scalars of one attempt, whole events alone. Where the disk refuses them that is said once and they
    are left out from there on: metrics.jsonl has the same numbers.

    TensorBoard's own writer raises in a thread, in which nobody can catch it.
    """

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._dropped = False

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends the scalars of one step."""
        if self._dropped:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        events = [Event(wall_time=time.time(), step=step, summary=Summary(value=values))]
        try:
            if not self.path.exists():
                self.path.parent.mkdir(exist_ok=True)
                events.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
            append_bytes(self.path, b"".join(map(_record, events)))
        except OSError as error:
            self._dropped = True
            logger.warning("TensorBoard is left out from step %d on, training goes on: %s", step, error)


def _record(event: Any) -> bytes:
    """With its length and checksums, as TensorBoard reads it."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()

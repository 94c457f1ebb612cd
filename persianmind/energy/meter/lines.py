"""Writing lines of energy/<node>.jsonl so that a kill can spoil one line at the most."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persianmind.common.checksum import dump_checked_line
from persianmind.run.energy_records import EnergyLine


class LedgerWriter:
    """Appends the lines of one meter to the ledger of one node."""

    def __init__(self, path: Path, *, node: str, attempt: str) -> None:
        self.path = path
        self.node = node
        self.attempt = attempt

    def write(self, kind: type[EnergyLine], **fields: Any) -> None:
        """One line of `kind`, made durable.

        Raises:
            OSError: the disk is full or failing.
        """
        append_line(
            self.path,
            kind(
                time=utc_now(),
                monotonic_s=round(time.monotonic(), 6),
                attempt=self.attempt,
                node=self.node,
                **fields,
            ),
        )


def append_line(path: Path, record: EnergyLine) -> None:
    """Appends one whole line in one write and makes it durable.

    A line that an earlier kill cut short is closed first, so that it can spoil only itself.
    """
    line = dump_checked_line(record.model_dump(mode="json")).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def utc_now() -> str:
    """Wall time for people and for the time-of-day curve; never used for durations."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_attempt() -> str:
    """A short name for one meter process's account, unique over a run's restarts."""
    return uuid.uuid4().hex[:12]

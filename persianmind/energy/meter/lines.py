"""Writing lines of energy/<node>.jsonl so that a kill can spoil one line at the most, a full disk none."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persianmind.common.atomic import append_line
from persianmind.common.checksum import dump_checked_line
from persianmind.run.energy_records import EnergyLine


class LedgerWriter:
    """Appends the lines of one meter to the ledger of one node.

    written: lines so far. unwritten: those that the disk has refused; they are written before the next one
    that it takes.
    """

    def __init__(self, path: Path, *, node: str, attempt: str, numbered: bool = True) -> None:
        """numbered: False for one that writes among the lines of another."""
        self.path = path
        self.node = node
        self.attempt = attempt
        self.written = 0
        self._numbered = numbered
        self.unwritten: list[str] = []

    def write(self, kind: type[EnergyLine], **fields: Any) -> None:
        """One line of `kind`, made durable.

        Raises:
            DiskError: the disk refuses it; it is kept.
        """
        self.written += 1
        record = kind(
            time=utc_now(),
            monotonic_s=round(time.monotonic(), 6),
            attempt=self.attempt,
            node=self.node,
            number=self.written if self._numbered else None,
            **fields,
        )
        self.unwritten.append(dump_checked_line(record.model_dump(mode="json")))
        self.flush()

    def flush(self) -> None:
        """Writes what was refused before.

        Raises:
            DiskError: it is refused again.
        """
        if self.unwritten:
            append_line(self.path, "\n".join(self.unwritten), durable=True)
            self.unwritten.clear()


def utc_now() -> str:
    """Wall time for people and for the time-of-day curve; never used for durations."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_attempt() -> str:
    """A short name for one meter process's account, unique over a run's restarts."""
    return uuid.uuid4().hex[:12]

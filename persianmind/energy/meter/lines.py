"""Writing lines of energy/<node>.jsonl so that a kill can spoil one line at the most."""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def ledger_path(run: Path, node: str) -> Path:
    """energy/<node>.jsonl of a run folder."""
    return run / "energy" / f"{node}.jsonl"


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Appends one whole line in one write and makes it durable.

    A line that an earlier kill cut short is closed first, so that it can spoil only itself.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
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


def record(kind: str, attempt: str, node: str, **fields: Any) -> dict[str, Any]:
    """A ledger line. `monotonic_s` orders the lines of one boot, whatever the wall clock does."""
    when = {"time": utc_now(), "monotonic_s": round(time.monotonic(), 6)}
    return {"kind": kind, **when, "attempt": attempt, "node": node, **fields}


def new_attempt() -> str:
    """A short name for one process's account, unique over a run's restarts."""
    return uuid.uuid4().hex[:12]

"""The heartbeat file of a rank: written in place, read by every other rank."""

from __future__ import annotations

import os
from pathlib import Path

from persianmind.common.checksum import dump_checked_line
from persianmind.run.records import Heartbeat, parse_record

# Longer than any: the same blocks are written again and again, for which a disk that is full still has room.
SIZE_BYTES = 4096


def heartbeat_path(folder: Path, rank: int) -> Path:
    """Its file, of `RunFolder.heartbeats`."""
    return folder / f"rank-{rank}.json"


def write_heartbeat(path: Path, beat: Heartbeat) -> None:
    """Writes it over the one before.

    Raises:
        OSError: the disk refuses it.
    """
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        line = dump_checked_line(beat.model_dump(mode="json")).encode("utf-8")
        os.pwrite(descriptor, line.ljust(SIZE_BYTES), 0)
    finally:
        os.close(descriptor)


def read_heartbeat(path: Path) -> Heartbeat | None:
    """None where there is none yet, or it is just being written."""
    try:
        return parse_record(path.read_bytes(), Heartbeat)
    except OSError:
        return None


def describe_rank(rank: int, beat: Heartbeat | None) -> str:
    """A rank with its process and node, and what it prepares."""
    if beat is None:
        return f"rank {rank}"
    doing = f", preparing {beat.preparing}" if beat.preparing else ""
    return f"rank {rank} (pid {beat.pid} on {beat.node}{doing})"

"""Memory of this host that a process can still have."""

from __future__ import annotations

from pathlib import Path

import psutil

CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_bytes(control_group: Path = CONTROL_GROUP) -> int:
    """What is free or can be had without swapping, and no more than a container may have."""
    available = int(psutil.virtual_memory().available)
    left = _left_of_limit(control_group)
    return available if left is None else min(available, left)


def _left_of_limit(folder: Path) -> int | None:
    """Of a control group, version 2; None where it has no limit. Pages of files that nobody reads count as
    used there, though the system drops them first."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    unread = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - max(0, used - unread))

"""The DeepSpeed launchers above this process."""

from __future__ import annotations

import os
from pathlib import Path

# The module that starts the ranks of a machine, and the command above it.
STARTER, COMMAND = b"deepspeed/launcher/launch.py", b"deepspeed"
STARTER_MODULE = b"deepspeed.launcher.launch"


def launchers() -> list[int]:
    """The pids of DeepSpeed's launchers above this process, nearest first; empty without one."""
    pids: list[int] = []
    pid = os.getppid()
    while _is_launcher(_read(pid, "cmdline").split(b"\0")):
        pids.append(pid)
        # After the name in brackets: state, then the parent.
        after = _read(pid, "stat").rpartition(b")")[2].split()
        pid = int(after[1]) if len(after) > 1 else 0
    return pids


def _is_launcher(words: list[bytes]) -> bool:
    """By the program alone: a shell with such a command line is somebody else."""
    return any(
        word == STARTER_MODULE or word.endswith(STARTER) or word.rpartition(b"/")[2] == COMMAND
        for word in words[:4]
    )


def _read(pid: int, name: str) -> bytes:
    """A file of /proc; nothing where there is no such process, or no /proc."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""

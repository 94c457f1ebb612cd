"""The DeepSpeed launchers above this process."""

from __future__ import annotations

import psutil

# The module that starts the ranks of a machine, and the command above it.
STARTER, COMMAND = "deepspeed/launcher/launch.py", "deepspeed"
STARTER_MODULE = "deepspeed.launcher.launch"


def launcher_pids() -> list[int]:
    """Their pids, nearest first; empty without one."""
    pids: list[int] = []
    try:
        above = psutil.Process().parent()
        while above is not None and _is_launcher(above.cmdline()):
            pids.append(above.pid)
            above = above.parent()
    except psutil.Error:  # one of them is just ending
        return pids
    return pids


def _is_launcher(words: list[str]) -> bool:
    """By the program alone: a shell with such a command line is somebody else."""
    return any(
        word == STARTER_MODULE or word.endswith(STARTER) or word.rpartition("/")[2] == COMMAND
        for word in words[:4]
    )

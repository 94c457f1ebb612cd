"""The DeepSpeed launchers above this process."""

from __future__ import annotations

import os

import psutil

# The module that starts the ranks of a machine, and the command above it.
STARTER, COMMAND = "deepspeed/launcher/launch.py", "deepspeed"
STARTER_MODULE = "deepspeed.launcher.launch"
STARTED = "CROSS_RANK"  # a variable that the starter gives its ranks

# Those that were there when this process began.
_above: list[int] = []


def launcher_pids() -> list[int]:
    """Their pids, nearest first; empty without one."""
    return [process.pid for process in _launchers()]


def remember_launchers() -> list[int]:
    """`launcher_pids` of now, which `launcher_is_gone` compares with; called first by every entry."""
    _above[:] = launcher_pids()
    return list(_above)


def launcher_is_gone() -> bool:
    """Whether a launcher that started this process has ended. Never without one."""
    launchers = _launchers()
    if [process.pid for process in launchers][: len(_above)] != _above:
        return True
    try:
        if launchers:
            return not _is_command(launchers[-1].cmdline()) and _lost_its_parent(launchers[-1])
        return STARTED in os.environ and _lost_its_parent(psutil.Process())
    except (psutil.Error, ProcessLookupError):  # one of them is just ending
        return False


def _launchers() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    try:
        above = psutil.Process().parent()
        while above is not None and _is_launcher(above.cmdline()):
            found.append(above)
            above = above.parent()
    except psutil.Error:  # one of them is just ending
        return found
    return found


def _is_launcher(words: list[str]) -> bool:
    """By the program alone: a shell with such a command line is somebody else."""
    return _is_command(words) or any(word == STARTER_MODULE or word.endswith(STARTER) for word in words[:4])


def _is_command(words: list[str]) -> bool:
    return any(word.rpartition("/")[2] == COMMAND for word in words[:4])


def _lost_its_parent(process: psutil.Process) -> bool:
    """Whether what started a process has ended, also before anybody looked: a child is born into the session
    of its parent, and leaves it as the leader of a new one alone."""
    parent = process.parent()
    return parent is not None and os.getsid(process.pid) not in (process.pid, os.getsid(parent.pid))

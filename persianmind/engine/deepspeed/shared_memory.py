"""The buffers of DeepSpeed's CPU kernel in the machine's shared memory: 67 MB a rank.

Each is a file named after user, address, port and rank (DeepSpeed's csrc/cpu/comm/shm.cpp), which its rank
and its neighbours open as the group is made, map, and keep open. Only a clean exit takes the name away; a
killed process would leave the memory taken until the machine restarts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")
logger = logging.getLogger(__name__)


def forget_shared_buffer(rank: int) -> None:
    """Takes the name of this rank's buffer away once every rank has it mapped: the memory then goes with the
    last of them, however it ends. All ranks together."""
    import torch.distributed

    torch.distributed.barrier()
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    (SHARED_MEMORY / f"{_own_prefix()}{address}_{port}_{rank}").unlink(missing_ok=True)


def remove_dead_buffers() -> list[Path]:
    """Removes, and returns, this user's buffers that no living process has open: of ranks that were killed
    while the group was made.

    Nothing is removed where a process of this user that may be a rank does not show what it has open.
    """
    left = {path for path in SHARED_MEMORY.glob(f"{_own_prefix()}*") if _is_own_file(path)}
    if not left or (in_use := _opened_by_own_processes()) is None:
        return []
    removed = sorted(path for path in left if str(path) not in in_use)
    freed_bytes = 0
    for path in removed:
        freed_bytes += path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
    if removed:
        logger.info(f"shared memory: {freed_bytes / 1e6:.0f} MB of killed runs removed from {SHARED_MEMORY}")
    return removed


def _own_prefix() -> str:
    return f"deepspeed_allreduce_buffer_{os.getuid()}_"


def _is_own_file(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid() and path.is_file() and not path.is_symlink()
    except OSError:  # another start has just removed it
        return False


def _opened_by_own_processes() -> set[str] | None:
    """Files in shared memory that processes of this user have open or mapped; None where a Python process, as
    ranks are, does not show it. Containers that share the memory and not their processes are not seen: to
    them a name matters for the second in which ranks open each other's buffers, and no longer."""
    found: set[str] = set()
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.status() != psutil.STATUS_ZOMBIE:
                found.update(_opened_by(PROCESSES / str(process.pid)))
        except (psutil.AccessDenied, PermissionError):
            if _runs_python(process):
                return None
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue  # it has just ended, and what it had open with it
    return found


def _runs_python(process: psutil.Process) -> bool:
    try:
        return any("python" in word for word in process.cmdline()[:1])
    except psutil.Error:
        return True


def _opened_by(process: Path) -> Iterator[str]:
    """Open files first: a buffer is written before it is mapped."""
    for opened in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            yield str(opened.readlink())
    for line in (process / "maps").read_text(encoding="utf-8", errors="replace").splitlines():
        _, found, path = line.partition(str(SHARED_MEMORY))
        if found:
            yield found + path

"""The file system of the run folder: room, speed, and whether it is another machine's."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.common.disk import existing_folder
from persianmind.common.errors import MachineError
from persianmind.estimate.disk import run_bytes

GB = 1e9
WRITTEN_BYTES, CHUNK_BYTES = 64 << 20, 4 << 20
WRITING_S = 2.0
# A checkpoint of a 7B with 9,510 new tokens is about 1.7 GB: at this speed its background write takes 35 s.
LEAST_BYTES_PER_S = 50e6
NETWORK_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|ceph|lustre|gpfs|glusterfs|beegfs|afs|fuse\.(?:sshfs|glusterfs|ceph|s3fs|rclone)"
)


def check_room(folder: Path, needed_bytes: int) -> str:
    """Looks at the file system that `folder` is or will be on.

    Raises:
        MachineError: less than `needed_bytes` are free.
    """
    place = existing_folder(folder)
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise MachineError(
            f"{place} has {free_bytes / GB:.2f} GB free and the run needs at least "
            f"{needed_bytes / GB:.2f} GB; free some space or give another --output"
        )
    return f"{free_bytes / GB:.1f} GB free"


def state_room(context: CheckContext) -> str:
    """`check_room` for the recipe; without one, for what any run writes at the least."""
    needed_bytes = 0 if context.recipe is None else run_bytes(context.recipe)
    return check_room(context.folder.path, needed_bytes)


def check_disk_speed(context: CheckContext) -> Iterator[CheckResult]:
    """Writes for at most two seconds into a file without a name: nothing is left, however this ends."""
    place = existing_folder(context.folder.path)
    try:
        yield speed_finding(*measure_writing(place))
    except OSError as error:
        yield CheckResult.fail(
            "disk speed",
            f"{place} cannot be written ({error.strerror}); change its owner or give another --output",
        )


def measure_writing(folder: Path, clock_s: float = WRITING_S) -> tuple[float, float]:
    """Writes up to 64 MiB in pieces, then has them put on the disk.

    Args:
        clock_s: no piece is begun after that many seconds.

    Returns:
        (bytes per second, fsync included; seconds of the fsync).

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    piece = os.urandom(CHUNK_BYTES)  # not zeros: some file systems store those for nothing
    with tempfile.TemporaryFile(dir=folder, buffering=0) as handle:
        started_s = time.perf_counter()
        written = 0
        while written < WRITTEN_BYTES and time.perf_counter() - started_s < clock_s:
            written += handle.write(piece)
        before_s = time.perf_counter()
        os.fsync(handle.fileno())
        ended_s = time.perf_counter()
    return written / (ended_s - started_s), ended_s - before_s


def speed_finding(bytes_per_s: float, fsync_s: float) -> CheckResult:
    """In words, against what checkpoints need."""
    text = f"{bytes_per_s / 1e6:.0f} MB/s written, fsync {fsync_s * 1e3:.0f} ms"
    if bytes_per_s >= LEAST_BYTES_PER_S:
        return CheckResult.ok("disk speed", text)
    return CheckResult.warn(
        "disk speed",
        f"{text}: a checkpoint takes {GB / bytes_per_s:.0f} s per GB; put --output on a faster disk, or "
        "raise checkpoint.every_steps",
    )


def check_file_system(context: CheckContext) -> Iterator[CheckResult]:
    """Whether the run folder lies on another machine's disk."""
    place = existing_folder(context.folder.path)
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        yield CheckResult.ok("file system", f"{place}: not known on this system")
        return
    yield file_system_finding(place.resolve(), table)


def file_system_finding(place: Path, table: str) -> CheckResult:
    """table: the text of /proc/self/mountinfo."""
    kind = mounted_kind(place, table)
    if kind is None or not NETWORK_SYSTEMS.fullmatch(kind):
        return CheckResult.ok("file system", f"{place} is on {kind or 'an unknown file system'}")
    if kind == "9p":
        return CheckResult.warn(
            "file system",
            f"{place} is on 9p (a folder of Windows in WSL2, or of a virtual machine's host): slow, and "
            "without dependable locks; put --output on this system's own disk",
        )
    return CheckResult.warn(
        "file system",
        f"{place} is on {kind}, a network file system: right for a cluster, where every node must see it; "
        "for one machine give an --output on its own disk, and see that locks work (nfs: lockd, not nolock)",
    )


def mounted_kind(place: Path, table: str) -> str | None:
    """The type of the file system that holds an absolute path, by the longest mount point above it."""
    best: tuple[int, str] | None = None
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        # Spaces of a mount point are written as \040.
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if place.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = len(point.parts), right.split()[0]
    return None if best is None else best[1]

"""Ways in which the file system under a run goes bad, and comes back."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persianmind.common.poll import wait_until

SIZE = (
    "1500m"  # of the memory that a full disk takes; what is free must be enough for the checks at the start
)
PIECE_BYTES = 1 << 20


def cannot_mount(folder: Path) -> str | None:
    """Why no file system can be mounted here, or None."""
    try:
        with mounted(folder):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no tmpfs can be mounted here: {error}"


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "persianmind-test", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is free."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        for piece in (bytes(PIECE_BYTES), bytes(4096), b"\0"):
            _write_until_full(descriptor, piece)
        yield
    finally:
        os.close(descriptor)
        filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Nothing can be opened for writing or made; files that are open stay so."""
    # A second mount over the first, which cannot turn read-only while files on it are open for writing. It is
    # made beside it: in its place something would be opened through it before it is read-only.
    beside = disk.with_name("read-only")
    beside.mkdir(exist_ok=True)
    _run("mount", "--bind", str(disk), str(beside))
    _run("mount", "-o", "remount,bind,ro", str(beside))
    _run("mount", "--bind", str(beside), str(disk))
    _run("umount", "--lazy", str(beside))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(disk))


@contextmanager
def vanished(disk: Path) -> Iterator[None]:
    """The run folder is gone, as when a network share goes away; what is made there instead is dropped."""
    assert wait_until(lambda: any(path.is_dir() for path in disk.iterdir()), timeout_s=60)
    (run,) = (path for path in disk.iterdir() if path.is_dir())
    away = disk / "away"
    run.rename(away)
    try:
        yield
    finally:
        if run.exists():
            _run("rm", "-r", str(run))
        away.rename(run)


def _write_until_full(descriptor: int, piece: bytes) -> None:
    try:
        while True:
            os.write(descriptor, piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

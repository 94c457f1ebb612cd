"""Bases that were made on this machine: each made once, kept with the hashes of its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock

from persianmind.common.atomic import atomic_dir
from persianmind.common.checksum import hash_file, read_checked, write_checked
from persianmind.common.errors import BaseModelError, DamagedFileError
from persianmind.common.lock import held_when_free

CACHE = "PERSIANMIND_CACHE"
MADE = ".made.json"  # the hash of each other file of a base


def cache_folder() -> Path:
    """What is kept for all runs of this machine: $PERSIANMIND_CACHE, or ~/.cache/persianmind."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "persianmind")


def made_before(name: str) -> Path | None:
    """The folder of a base; None where it is not made yet.

    Raises:
        BaseModelError: it is not as it was made.
    """
    folder = _folder(name)
    if not (folder / MADE).is_file():
        return None
    verify_made(folder)
    return folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of a base. One process makes it; others that ask meanwhile (two first runs on a machine)
    wait and find it.

    Raises:
        BaseModelError: it is not as it was made.
    """
    folder = _folder(name)
    if not (folder / MADE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{name}.lock"), mode=0o644, thread_local=False)
        with held_when_free(lock, folder.with_name(f".tmp-{name}")):
            if not folder.exists():
                with atomic_dir(folder) as temporary:
                    make(temporary)
                    files = {path.name: hash_file(path) for path in sorted(temporary.iterdir())}
                    write_checked(temporary / MADE, {"files": files})
    verify_made(folder)
    return folder


@cache  # once in a process: a base is asked for a dozen times
def verify_made(folder: Path) -> None:
    """Compares every file with its hash.

    Raises:
        BaseModelError: one is missing or damaged; the message names it.
    """
    try:
        files: dict[str, str] = read_checked(folder / MADE)["files"]
    except (FileNotFoundError, DamagedFileError):
        files = {MADE: ""}
    for name, digest in files.items():
        if not (folder / name).is_file() or hash_file(folder / name) != digest:
            raise BaseModelError(f"{folder / name} is missing or damaged; delete {folder}, it is made again")


def _folder(name: str) -> Path:
    return cache_folder() / "made-bases" / name

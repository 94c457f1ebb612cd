"""Verification: every byte of a checkpoint is compared with its manifest before anything is used.

Ranks may share the hashing; all of them come to the same verdict.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from persianmind.checkpoint.group import SOLO, RankGroup, describe
from persianmind.checkpoint.manifest import MANIFEST, FileEntry, StoredCheckpoint, read_manifest
from persianmind.common.checksum import hash_file
from persianmind.common.errors import CheckpointError


def list_files(folder: Path) -> dict[str, int]:
    """Every regular file below `folder` with its size, by relative POSIX path.

    Raises:
        CheckpointError: something below is neither a folder nor a regular file (a link, a device, a pipe).
    """
    sizes_bytes: dict[str, int] = {}
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                name = path.relative_to(folder).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif entry.is_file(follow_symlinks=False):
                    sizes_bytes[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    kind = "a symbolic link" if entry.is_symlink() else "no regular file"
                    raise CheckpointError(f"{folder.name}/{name}: is {kind}")
    return dict(sorted(sizes_bytes.items()))


def share_of(sizes_bytes: dict[str, int], rank: int, world_size: int) -> list[str]:
    """The files whose bytes `rank` reads: largest first, each to the rank with the least so far."""
    loads = [0] * world_size
    mine: list[str] = []
    for name in sorted(sizes_bytes, key=lambda name: (-sizes_bytes[name], name)):
        target = loads.index(min(loads))
        loads[target] += sizes_bytes[name] + 1  # +1: empty files are spread as well
        if target == rank:
            mine.append(name)
    return mine


def layout_damage(checkpoint: StoredCheckpoint) -> list[str]:
    """What differs from the manifest without reading contents: missing, foreign and cut files, links."""
    name = checkpoint.path.name
    try:
        found = list_files(checkpoint.path)
    except (CheckpointError, OSError) as error:
        return [describe(error)]
    found.pop(MANIFEST, None)
    problems = [f"{name}/{file}: is missing" for file in checkpoint.files if file not in found]
    problems += [f"{name}/{file}: is not in the manifest" for file in found if file not in checkpoint.files]
    for file, entry in checkpoint.files.items():
        if file in found and found[file] != entry.size_bytes:
            problems.append(f"{name}/{file}: has {found[file]} bytes, the manifest says {entry.size_bytes}")
    return problems


def content_damage(checkpoint: StoredCheckpoint, names: Iterable[str]) -> list[str]:
    """Which of `names` hash to something else than the manifest says."""
    problems = []
    for name in names:
        expected: FileEntry = checkpoint.files[name]
        try:
            actual = hash_file(checkpoint.file(name))
        except (CheckpointError, OSError) as error:
            problems.append(f"{checkpoint.path.name}/{name}: cannot be read ({describe(error)})")
            continue
        if actual != expected.digest:
            problems.append(
                f"{checkpoint.path.name}/{name}: its bytes changed (xxh3-128 {actual}, the manifest says "
                f"{expected.digest})"
            )
    return problems


def examine_checkpoint(folder: Path, group: RankGroup = SOLO) -> tuple[StoredCheckpoint | None, list[str]]:
    """Reads and verifies one checkpoint folder; every rank returns the same list of problems (empty: good).

    The checkpoint is None where even the manifest cannot be used.
    """
    checkpoint: StoredCheckpoint | None = None
    problems: list[str] = []
    try:
        checkpoint = read_manifest(folder)
        problems = layout_damage(checkpoint)
    except CheckpointError as error:
        problems = [str(error)]
    views = group.all_gather([problems, checkpoint.checksum if checkpoint else ""])
    problems = _union(view[0] for view in views)
    if not problems and len({view[1] for view in views}) > 1:
        problems = [
            f"{folder.name}/{MANIFEST}: ranks see different files; is the run folder shared by all nodes?"
        ]
    if checkpoint is None or problems:
        return checkpoint, problems
    sizes_bytes = {name: entry.size_bytes for name, entry in checkpoint.files.items()}
    mine = content_damage(checkpoint, share_of(sizes_bytes, group.rank, group.world_size))
    return checkpoint, _union(group.all_gather(mine))


def _union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(problem for problems in lists for problem in problems))

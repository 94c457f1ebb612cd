"""Which checkpoints stay, and removing one so that a half-removed one never looks whole."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from persianmind.checkpoint.manifest import MANIFEST, StoredCheckpoint
from persianmind.common.atomic import fsync_folder

FOLDER = re.compile(r"^step-(\d+)(?:\.(\d+))?$")
TEMPORARY = ".tmp-"


def checkpoint_folders(root: Path) -> list[Path]:
    """Folders named like a checkpoint, highest step first. Temporary and foreign names are not among them."""
    if not root.is_dir():
        return []
    named = [(match, path) for path in root.iterdir() if (match := FOLDER.match(path.name))]
    named.sort(key=lambda item: (int(item[0][1]), int(item[0][2] or 1)), reverse=True)
    return [path for _, path in named]


def folder_step(folder: Path) -> int:
    """The step in a checkpoint folder's name (the folder must be named like one)."""
    match = FOLDER.match(folder.name)
    assert match is not None
    return int(match[1])


def superseded(
    checkpoints: Iterable[StoredCheckpoint],
    *,
    keep_last: int,
    keep_every_steps: int | None,
    keep_step: int | None = None,
) -> list[StoredCheckpoint]:
    """What may go: all but the newest `keep_last`, of each multiple of `keep_every_steps` the newest, and of
    `keep_step` the newest."""
    newest_first: Sequence[StoredCheckpoint] = sorted(checkpoints, key=lambda one: one.sequence, reverse=True)
    kept = {one.sequence for one in newest_first[:keep_last]}
    if keep_every_steps:
        milestones: dict[int, int] = {}
        for one in newest_first:
            if one.step % keep_every_steps == 0:
                milestones.setdefault(one.step, one.sequence)
        kept.update(milestones.values())
    kept.update([one.sequence for one in newest_first if one.step == keep_step][:1])
    return [one for one in newest_first if one.sequence not in kept]


def remove_checkpoint(folder: Path) -> None:
    """Removes one checkpoint, its manifest first: whatever is left after a crash cannot pass for whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    fsync_folder(folder)
    doomed = folder.with_name(f"{TEMPORARY}removed-{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(root: Path) -> None:
    """Removes temporary folders of saves and removals that did not end."""
    for path in root.glob(f"{TEMPORARY}*"):
        if path.is_symlink() or not path.is_dir():
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            shutil.rmtree(path)

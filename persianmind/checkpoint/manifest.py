"""The manifest of a checkpoint: every file with size and hash, and the metadata of the run at that step.

A checked JSON file (common/checksum.py): any changed byte, white space included, is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.bounded import whole_count
from persianmind.common.checksum import hash_text, parse_checked, write_checked
from persianmind.common.errors import CheckpointError, DamagedFileError, PersianMindError
from persianmind.common.paths import resolve_inside

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """Size and xxh3-128 of one file of a checkpoint."""

    size_bytes: int
    digest: str


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as its manifest describes it. `metadata` is what the training loop recorded.

    `sequence` counts the saves of a run: it, not `step`, tells which checkpoint is newer, because a run that
    went back to an older one repeats step numbers. `checksum` is that of the manifest itself.
    """

    path: Path
    step: int
    sequence: int
    world_size: int
    saved_at: str
    metadata: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    checksum: str

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())

    def file(self, name: str) -> Path:
        """The path of a listed file.

        Raises:
            CheckpointError: the manifest does not list it, or it is a symbolic link or outside the folder.
        """
        if name not in self.files:
            raise CheckpointError(
                f"{self.path} lists no file {name!r}; its manifest has: {', '.join(self.files)}"
            )
        try:
            return resolve_inside(self.path, name)
        except CheckpointError:
            raise
        except PersianMindError as error:
            raise CheckpointError(str(error)) from None


def write_manifest(folder: Path, checkpoint: StoredCheckpoint) -> None:
    """Writes the manifest of `checkpoint` into `folder` (its `checksum` is computed here).

    Raises:
        ValueError, TypeError: the metadata are not plain JSON.
        OSError: the file cannot be written.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "step": checkpoint.step,
        "sequence": checkpoint.sequence,
        "world_size": checkpoint.world_size,
        "saved_at": checkpoint.saved_at,
        "metadata": dict(checkpoint.metadata),
        "files": {
            name: {"size_bytes": entry.size_bytes, "xxh3_128": entry.digest}
            for name, entry in checkpoint.files.items()
        },
    }
    write_checked(folder / MANIFEST, content)


def is_checkpoint(folder: Path) -> bool:
    """Whether `folder` has a manifest, sound or not."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> StoredCheckpoint:
    """Reads and checks the manifest of a checkpoint folder; the files it lists are not looked at yet.

    Raises:
        CheckpointError: missing, damaged, of a newer format, or with a path that leaves the folder.
    """
    path = folder / MANIFEST
    if folder.is_symlink() or path.is_symlink():
        raise CheckpointError(f"{folder.name}/{MANIFEST}: is reached through a symbolic link")
    where = f"{folder.name}/{MANIFEST}"
    try:
        raw = path.read_bytes()
        content = parse_checked(raw, where)
    except FileNotFoundError:
        raise CheckpointError(f"{where}: is missing") from None
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read ({error.strerror})") from None
    except DamagedFileError as error:
        raise CheckpointError(str(error)) from None
    try:
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{folder.name}/{MANIFEST}: has format {content['format']}, this version reads {FORMAT}"
            )
        files = {
            str(name): FileEntry(whole_count(entry["size_bytes"]), str(entry["xxh3_128"]))
            for name, entry in content["files"].items()
        }
        checkpoint = StoredCheckpoint(
            path=folder,
            step=whole_count(content["step"]),
            sequence=whole_count(content["sequence"]),
            world_size=whole_count(content["world_size"]),
            saved_at=str(content["saved_at"]),
            metadata=dict(content["metadata"]),
            files=files,
            checksum=hash_text(raw.decode("utf-8")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder.name}/{MANIFEST}: is not a manifest of ours ({error!r})") from None
    for name in files:
        _check_name(folder, name)
    return checkpoint


def _check_name(folder: Path, name: str) -> None:
    if name == MANIFEST or os.path.normpath(name) != name or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"{folder.name}/{MANIFEST}: lists the path {name!r}, which no save of ours writes"
        )
    try:
        resolve_inside(folder, name)
    except PersianMindError as error:
        raise CheckpointError(f"{folder.name}/{MANIFEST}: {error}") from None

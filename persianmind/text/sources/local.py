"""Files, globs and folders of this machine's file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import xxhash

from persianmind.common.errors import SourceError, nearest
from persianmind.recipe import Source
from persianmind.text.compression import Compression
from persianmind.text.formats import kind_of_name, supported_kinds, text_formats
from persianmind.text.record import Payload
from persianmind.text.sources.kinds import Kind, kind_of_file
from persianmind.text.sources.listing import LeftOut, Listing, nothing_left, other_splits, why_no_text

_SAMPLE_BLOCKS, _SAMPLE_BLOCK_BYTES = 16, 1 << 16


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file."""

    uri: str
    name: str
    format: str
    compression: Compression
    size_bytes: int
    remote: ClassVar[bool] = False

    def open(self) -> IO[bytes]:
        """The bytes as stored (still compressed). Raises OSError as the file system does."""
        return Path(self.uri).open("rb")

    def read(self, source_name: str, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """As its format reads it."""
        return text_formats()[self.format].read(self, source, skip)

    def check(self, source_name: str, source: Source) -> None:
        """As its format checks it."""
        text_formats()[self.format].check(self, source_name, source)

    def identity(self) -> str:
        """Hash of sixteen blocks spread over the file: reading every byte would make each start as slow as
        the corpus is large. An edit that keeps the size and touches none of the blocks is missed."""
        digest = xxhash.xxh3_128()
        last_start = max(0, self.size_bytes - _SAMPLE_BLOCK_BYTES)
        starts = sorted({last_start * i // (_SAMPLE_BLOCKS - 1) for i in range(_SAMPLE_BLOCKS)})
        with self.open() as handle:
            for start in starts:
                handle.seek(start)
                digest.update(handle.read(_SAMPLE_BLOCK_BYTES))
        return digest.hexdigest()


def list_local(source_name: str, path: Path) -> Listing:
    """The files at a path: itself, those of a folder, the matches of a glob; by name.

    Raises:
        SourceError: nothing is there, or it cannot be read; the message names the fix.
    """
    if path.is_dir():
        below, skipped = _walk(path)
        return _sort_out(source_name, path, below, skipped, f"the folder {path}")
    if path.exists() or path.is_symlink():
        kind = _kind(source_name, path)
        if isinstance(kind, str):
            raise SourceError(
                f"sources.{source_name}: {path.name} cannot be read: {kind}; give {supported_kinds()}"
            )
        return Listing([_local_file(path, path.name, kind)])
    if any(letter in str(path) for letter in "*?["):
        root = Path(path.anchor or ".")
        matches = sorted(p for p in root.glob(str(path.relative_to(root))) if not p.is_dir())
        if matches:
            return _sort_out(source_name, _fixed_part(path), matches, [], f"the glob {path}", path.name)
        raise SourceError(
            f"sources.{source_name}: the glob {path} matches no file (working folder: {Path.cwd()})"
        )
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise SourceError(f"sources.{source_name}: no such file or folder: {path}{nearest(path.name, siblings)}")


def _walk(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Every file below a folder, by name; folders that are hidden, or links, are one entry each."""
    files, skipped = [], []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        for name in list(folders):
            inside = here / name
            relative = inside.relative_to(folder).as_posix()
            if inside.is_symlink():
                skipped.append(LeftOut(f"{relative}/", None, "a link to a folder: give its target as a uri"))
            elif (reason := why_no_text(relative)) is not None:
                folders.remove(name)
                skipped.append(LeftOut(f"{relative}/", _folder_size(inside), reason))
        files += [here / name for name in names]
    return sorted(files), skipped


def _folder_size(folder: Path) -> int:
    inside = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in inside)


def _fixed_part(glob: Path) -> Path:
    """The folder above the first part of a glob that stands for several names."""
    fixed = Path(glob.anchor)
    for part in glob.relative_to(glob.anchor).parts[:-1]:
        if any(letter in part for letter in "*?["):
            break
        fixed /= part
    return fixed


def _sort_out(
    source_name: str, root: Path, paths: list[Path], skipped: list[LeftOut], where: str, named: str = ""
) -> Listing:
    """Which of the files are the source's text. named: see `other_splits`."""
    files, left_out = [], list(skipped)
    relatives = {path: path.relative_to(root).as_posix() for path in paths}
    kinds: dict[Path, Kind] = {}
    for path, relative in relatives.items():
        reason: Kind | str | None = why_no_text(relative)
        if reason is None:
            reason = _kind(source_name, path)
        if isinstance(reason, str):
            left_out.append(LeftOut(relative, path.lstat().st_size, reason))
        else:
            kinds[path] = reason
    splits = other_splits((relatives[path] for path in kinds), named)
    for path, kind in kinds.items():
        relative = relatives[path]
        if relative in splits:
            left_out.append(LeftOut(relative, path.stat().st_size, splits[relative]))
        else:
            files.append(_local_file(path, relative, kind))
    if not files:
        raise SourceError(f"sources.{source_name}: {where} holds no text to train on{nothing_left(left_out)}")
    return Listing(files, sorted(left_out, key=lambda one: one.path))


def _kind(source_name: str, path: Path) -> Kind | str:
    if not path.exists():
        raise SourceError(f"sources.{source_name}: {path} is a broken symbolic link; repair or remove it")
    if not os.access(path, os.R_OK):
        raise SourceError(
            f"sources.{source_name}: {path} may not be read by this user; change its permissions"
        )
    if not path.is_file():
        return "no regular file"
    try:
        return kind_of_file(path)
    except OSError:  # counted as a damaged file where it is read
        return kind_of_name(path.name) or "unreadable"


def _local_file(path: Path, name: str, kind: Kind) -> LocalFile:
    return LocalFile(str(path), name, *kind, size_bytes=path.stat().st_size)

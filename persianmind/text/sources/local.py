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
from persianmind.text.formats import kind_of, supported_kinds, text_formats
from persianmind.text.record import Payload
from persianmind.text.sources.base import SourceFile, require_kind

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


def locate_local(source_name: str, path: Path) -> list[SourceFile]:
    """The files at a path: itself, those of a known kind in a folder, the matches of a glob; by name.

    Raises:
        SourceError: nothing is there, or it cannot be read; the message names the fix.
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if not p.is_dir() and kind_of(p.name) is not None)
        if not inside:
            raise SourceError(
                f"sources.{source_name}: the folder {path} holds no file of a known kind "
                f"({supported_kinds()})"
            )
        return [_local_file(source_name, p, p.relative_to(path).as_posix()) for p in inside]
    if path.exists() or path.is_symlink():
        return [_local_file(source_name, path)]
    if any(letter in str(path) for letter in "*?["):
        root = Path(path.anchor or ".")
        matches = sorted(p for p in root.glob(str(path.relative_to(root))) if not p.is_dir())
        if matches:
            return [_local_file(source_name, p) for p in matches]
        raise SourceError(
            f"sources.{source_name}: the glob {path} matches no file (working folder: {Path.cwd()})"
        )
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise SourceError(f"sources.{source_name}: no such file or folder: {path}{nearest(path.name, siblings)}")


def _local_file(source_name: str, path: Path, name: str | None = None) -> LocalFile:
    """name: what messages call it; its last path component unless given."""
    if not path.exists():
        raise SourceError(f"sources.{source_name}: {path} is a broken symbolic link; repair or remove it")
    if not os.access(path, os.R_OK):
        raise SourceError(
            f"sources.{source_name}: {path} may not be read by this user; change its permissions"
        )
    kind = require_kind(source_name, path.name)
    return LocalFile(str(path), name or path.name, *kind, size_bytes=path.stat().st_size)

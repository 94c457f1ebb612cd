"""From the URIs of a source to its files: local paths, globs, folders, fsspec URLs; and a fingerprint.

`package://NAME` and `hf://NAME` are one pseudo-file each. The order of files is fixed (the order of the URIs;
inside a glob or a folder, by name), because keys, shards and resume all hang on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import xxhash

from persianmind.common.checksum import hash_text
from persianmind.common.errors import SourceError, nearest
from persianmind.recipe import Source

Format = Literal["jsonl", "txt", "parquet", "package", "hf"]
Compression = Literal["", "gz", "zst"]

_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".parquet": "parquet"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}
SUPPORTED = "jsonl, ndjson and txt (each also as .gz or .zst), and parquet"
_SAMPLE_BLOCKS, _SAMPLE_BLOCK_BYTES = 16, 1 << 16


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. `name` is its last path component: what keys and messages carry."""

    uri: str
    name: str
    format: Format
    compression: Compression
    remote: bool
    size_bytes: int | None

    def open(self) -> IO[bytes]:
        """Opens the bytes as stored (still compressed). Raises OSError as the file system does."""
        if not self.remote:
            return Path(self.uri).open("rb")
        import fsspec

        return cast(IO[bytes], fsspec.open(self.uri, "rb").open())


def locate(name: str, source: Source) -> list[SourceFile]:
    """The files of one source, in their fixed order; never empty.

    Raises:
        SourceError: a URI names nothing, or something of an unknown kind. The message names the fix.
    """
    uris = [source.uri] if isinstance(source.uri, str) else list(source.uri)
    if not uris or not all(uris):
        raise SourceError(f"sources.{name}.uri is empty; give a file, a folder, a glob or a URL")
    return [file for uri in uris for file in _locate_one(name, uri)]


def fingerprint(name: str, source: Source) -> str:
    """Identity of a source's content: names, sizes and the hash of 16 blocks spread over every local file.

    Reading every byte would make each start as slow as the corpus is large. What this can miss is an edit
    that keeps the size and touches none of the sampled 64 KiB blocks.
    """
    parts = [source.kind, source.text_field, source.txt_unit]
    for file in locate(name, source):
        parts += [file.name, str(file.size_bytes), _content_identity(file)]
    return hash_text(*parts)


def _locate_one(name: str, uri: str) -> list[SourceFile]:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _locate_local(name, Path(uri).expanduser())
    if scheme == "file":
        return _locate_local(name, Path(rest))
    if scheme == "package":
        return [_package_file(uri, rest)]
    if scheme == "hf":
        if not rest:
            raise SourceError(f"sources.{name}.uri {uri!r} names no dataset; write hf://owner/dataset")
        return [SourceFile(uri, rest, "hf", "", remote=True, size_bytes=None)]
    return _locate_remote(name, uri, scheme)


def _package_file(uri: str, package: str) -> SourceFile:
    from persianmind.text.sources.package import check_package

    check_package(package)
    return SourceFile(uri, package, "package", "", remote=False, size_bytes=None)


def _locate_local(name: str, path: Path) -> list[SourceFile]:
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if not p.is_dir() and split_suffixes(p.name) is not None)
        if not inside:
            raise SourceError(
                f"sources.{name}: the folder {path} holds no file of a known kind ({SUPPORTED})"
            )
        return [_local_file(name, p) for p in inside]
    if path.exists() or path.is_symlink():
        return [_local_file(name, path)]
    if any(letter in str(path) for letter in "*?["):
        root = Path(path.anchor or ".")
        matches = sorted(p for p in root.glob(str(path.relative_to(root))) if not p.is_dir())
        if matches:
            return [_local_file(name, p) for p in matches]
        raise SourceError(f"sources.{name}: the glob {path} matches no file (working folder: {Path.cwd()})")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise SourceError(f"sources.{name}: no such file or folder: {path}{nearest(path.name, siblings)}")


def _local_file(name: str, path: Path) -> SourceFile:
    if not path.exists():
        raise SourceError(f"sources.{name}: {path} is a broken symbolic link; repair or remove it")
    if not os.access(path, os.R_OK):
        raise SourceError(f"sources.{name}: {path} may not be read by this user; change its permissions")
    kind = _kind_of(name, path.name)
    return SourceFile(str(path), path.name, *kind, remote=False, size_bytes=path.stat().st_size)


def _locate_remote(name: str, uri: str, scheme: str) -> list[SourceFile]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise SourceError(f"sources.{name}: cannot open {scheme}:// URLs: {error}") from None
    try:
        if any(letter in uri for letter in "*?["):
            paths = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            paths = sorted(p for p in filesystem.find(path) if split_suffixes(_last(p)) is not None)
        else:
            paths = [path] if filesystem.exists(path) else []
        if not paths:
            raise SourceError(f"sources.{name}: nothing of a known kind at {uri} ({SUPPORTED})")
        return [
            SourceFile(
                filesystem.unstrip_protocol(p),
                _last(p),
                *_kind_of(name, _last(p)),
                remote=True,
                size_bytes=filesystem.info(p).get("size"),
            )
            for p in paths
        ]
    except OSError as error:
        raise SourceError(
            f"sources.{name}: cannot list {uri}: {error}; check the URL and the network"
        ) from None


def split_suffixes(file_name: str) -> tuple[Format, Compression] | None:
    """Format and compression by suffix, or None for a kind that is not read."""
    stem = file_name.lower()
    compression: Compression = ""
    for suffix, known in _COMPRESSIONS.items():
        if stem.endswith(suffix):
            compression, stem = known, stem[: -len(suffix)]
    found = _FORMATS.get(Path(stem).suffix)
    if found is None or (found == "parquet" and compression):
        return None
    return found, compression


def _kind_of(name: str, file_name: str) -> tuple[Format, Compression]:
    kind = split_suffixes(file_name)
    if kind is None:
        raise SourceError(f"sources.{name}: {file_name} is of no known kind; give {SUPPORTED}")
    return kind


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _content_identity(file: SourceFile) -> str:
    if file.format == "package":
        return ""  # rows are data of an installed, versioned package; its name is in the fingerprint
    if file.format == "hf":
        return file.uri
    if file.remote:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(file.uri)
        info: Mapping[str, Any] = filesystem.info(path)
        return str(info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or "")
    return _sampled_hash(Path(file.uri), file.size_bytes or 0)


def _sampled_hash(path: Path, size_bytes: int) -> str:
    digest = xxhash.xxh3_128()
    last_start = max(0, size_bytes - _SAMPLE_BLOCK_BYTES)
    starts = sorted({last_start * i // (_SAMPLE_BLOCKS - 1) for i in range(_SAMPLE_BLOCKS)})
    with path.open("rb") as handle:
        for start in starts:
            handle.seek(start)
            digest.update(handle.read(_SAMPLE_BLOCK_BYTES))
    return digest.hexdigest()

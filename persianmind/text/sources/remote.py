"""Files behind any fsspec URL: s3://, gs://, https://, memory:// and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, ClassVar, cast

from persianmind.common.errors import SourceError
from persianmind.common.progress import counted
from persianmind.recipe import Source
from persianmind.text.compression import Compression
from persianmind.text.formats import kind_of_name, text_formats
from persianmind.text.record import Payload
from persianmind.text.sources.listing import LeftOut, Listing, nothing_left, other_splits, why_no_text


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An object of some store."""

    uri: str
    name: str
    format: str
    compression: Compression
    size_bytes: int | None
    remote: ClassVar[bool] = True

    def open(self) -> IO[bytes]:
        """The bytes as stored (still compressed). Raises OSError as the file system does."""
        import fsspec

        return cast(IO[bytes], fsspec.open(self.uri, "rb").open())

    def read(self, source_name: str, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """As its format reads it."""
        return text_formats()[self.format].read(self, source, skip)

    def check(self, source_name: str, source: Source) -> None:
        """As its format checks it."""
        text_formats()[self.format].check(self, source_name, source)

    def identity(self) -> str:
        """The store's own tag or time; no byte is read."""
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(self.uri)
        info: Mapping[str, Any] = filesystem.info(path)
        return str(info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or "")


def list_remote(source_name: str, uri: str) -> Listing:
    """The files at a URL: itself, those of a known kind below it, the matches of a glob; by name.

    Kinds are told by name: a look into each of a thousand objects would take minutes.

    Raises:
        SourceError: nothing is there, or the store cannot be reached; the message names the fix.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        scheme = uri.partition("://")[0]
        raise SourceError(f"sources.{source_name}: cannot open {scheme}:// URLs: {error}") from None
    try:
        if any(letter in uri for letter in "*?["):
            root, named = path.partition("*")[0].rpartition("/")[0], _last(path)
            paths = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            root, named = path, ""
            paths = sorted(filesystem.find(path))
        else:
            root, named = path.rpartition("/")[0], _last(path)
            paths = [path] if filesystem.exists(path) else []
        relatives = {p: p.removeprefix(root).lstrip("/") for p in paths}
        sizes = {p: filesystem.info(p).get("size") for p in counted(paths)}
    except OSError as error:
        raise SourceError(
            f"sources.{source_name}: cannot list {uri}: {error}; check the URL and the network"
        ) from None
    splits = other_splits(relatives.values(), named)
    files, left_out = [], []
    for p, relative in relatives.items():
        kind = kind_of_name(p)
        # A file that is named itself is meant, whatever it is called.
        reason = None if paths == [path] else why_no_text(relative) or splits.get(relative)
        reason = reason or ("of no known kind" if kind is None else None)
        if reason is None and kind is not None:
            files.append(RemoteFile(filesystem.unstrip_protocol(p), relative, *kind, size_bytes=sizes[p]))
        else:
            left_out.append(LeftOut(relative, sizes[p], str(reason)))
    if not files:
        raise SourceError(f"sources.{source_name}: nothing of a known kind at {uri}{nothing_left(left_out)}")
    return Listing(files, left_out)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]

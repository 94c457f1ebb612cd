"""From the URIs of a source to its files, in a fixed order; and a fingerprint of them.

The order (that of the URIs; inside a glob or a folder, by name) is fixed because keys, shards and resume all
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from persianmind.common.checksum import hash_text
from persianmind.common.errors import SourceError
from persianmind.common.progress import counted
from persianmind.recipe import Source
from persianmind.text.sources.base import SourceFile
from persianmind.text.sources.hub import list_hub
from persianmind.text.sources.listing import Listing
from persianmind.text.sources.local import list_local
from persianmind.text.sources.package import list_package
from persianmind.text.sources.remote import list_remote

_BY_SCHEME: dict[str, Callable[[str, str], Listing]] = {
    "file": lambda name, uri: list_local(name, Path(uri.removeprefix("file://"))),
    "package": list_package,
    "hf": list_hub,
}


def locate(name: str, source: Source) -> list[SourceFile]:
    """The files of one source, in their fixed order; never empty.

    Raises:
        SourceError: as `list_source`.
    """
    return list(list_source(name, source).files)


def list_source(name: str, source: Source) -> Listing:
    """The files of one source, in their fixed order, never none; and those that are not read.

    Raises:
        SourceError: a URI names nothing, or something of an unknown kind. The message names the fix.
    """
    uris = source_uris(source)
    if not uris or not all(uris):
        raise SourceError(f"sources.{name}.uri is empty; give a file, a folder, a glob or a URL")
    listings = [_list_one(name, uri) for uri in uris]
    return Listing(
        [file for one in listings for file in one.files], [left for one in listings for left in one.left_out]
    )


def source_uris(source: Source) -> list[str]:
    """The URIs of a source, whether it has one or several."""
    return [source.uri] if isinstance(source.uri, str) else list(source.uri)


def source_fingerprint(name: str, source: Source) -> str:
    """Identity of a source's content: how it is read, and the names, sizes and identities of its files."""
    parts = [source.kind, source.text_field, source.txt_unit, str(source.group_by)]
    parts += [f"{name}={column}" for name, column in sorted(source.columns.items())]
    if source.kind == "parallel":
        parts += [f"{code}={field}" for code, field in source.languages.items()]
        parts += [f"{code}:{one}" for code, wordings in source.templates.items() for one in wordings]
    for file in counted(locate(name, source)):
        parts += [file.name, str(file.size_bytes), file.identity()]
    return hash_text(*parts)


def _list_one(name: str, uri: str) -> Listing:
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return list_local(name, Path(uri).expanduser())
    return _BY_SCHEME.get(scheme, list_remote)(name, uri)

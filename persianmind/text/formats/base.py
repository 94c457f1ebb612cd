"""What a text format is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol, TypeVar

from persianmind.common.errors import SourceError, nearest
from persianmind.recipe import Source
from persianmind.text.compression import Compression
from persianmind.text.faults import BadRecordError
from persianmind.text.record import Fields, Payload

T = TypeVar("T")


class ByteFile(Protocol):
    """Stored bytes that a format reads."""

    @property
    def name(self) -> str:
        """Its last path component."""
        ...

    @property
    def compression(self) -> Compression:
        """How the bytes are packed."""
        ...

    @property
    def remote(self) -> bool:
        """Whether an OSError may be the network's."""
        ...

    def open(self) -> IO[bytes]:
        """The bytes as stored (still compressed). Raises OSError as the file system does."""
        ...


class TextFormat(Protocol):
    """One format of text files. A module of this package that defines `FORMAT` adds one.

    suffixes: the ends of file names it serves, with the dot. compressible: whether a compression's
    suffix may follow.
    """

    @property
    def name(self) -> str:
        """Unique among the formats."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """As above."""
        ...

    @property
    def compressible(self) -> bool:
        """As above."""
        ...

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins so (unpacked) is of this format, whatever its name."""
        ...

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """(number from 1, payload) of the records whose number is greater than `skip`.

        Raises:
            BrokenFileError: the rest of the file cannot be read.
            OSError: as the file system raises it.
        """
        ...

    def decode(self, payload: Any, source: Source) -> Fields:
        """The fields of one record out of what `read` yielded for it.

        Raises:
            BadRecordError: they cannot be had.
        """
        ...

    def check(self, file: ByteFile, source_name: str, source: Source) -> None:
        """A cheap look at a file before anything is read.

        Raises:
            SourceError: the recipe asks for something that the file does not have.
        """
        ...


def after(numbered: Iterator[tuple[int, T]], skip: int) -> Iterator[tuple[int, T]]:
    """The items whose number is greater than `skip`."""
    return (item for item in numbered if item[0] > skip)


def decode_utf8(raw: bytes) -> str:
    """Strict UTF-8.

    Raises:
        BadRecordError: it is not.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRecordError("invalid_utf8") from None


def require_columns(file_name: str, source_name: str, source: Source, columns: Sequence[str]) -> None:
    """That a table has what the recipe reads from it.

    Raises:
        SourceError: it has not: a mistake in the recipe, not a million bad records.
    """
    wanted = {"text_field": source.text_field} if source.kind == "text" else {}
    if source.kind == "parallel" and "translation" not in columns:
        wanted |= {f"languages.{code}": field for code, field in source.languages.items()}
    wanted |= {f"columns.{name}": column for name, column in source.columns.items()}
    for setting, column in wanted.items():
        if column not in columns:
            raise SourceError(
                f"sources.{source_name}: {file_name} has no column {column!r}{nearest(column, columns)}; set "
                f"{setting} to one of: {', '.join(columns)}"
            )

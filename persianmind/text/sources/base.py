"""What a file of a source is, wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from persianmind.recipe import Source
from persianmind.text.record import Payload


class SourceFile(Protocol):
    """One file of a source, or what stands for one.

    name: its path below a folder that was named, else its last path component; what messages carry. remote:
    an OSError may be the network's, so the rest of the file is not lost. format: see RawRecord.
    """

    @property
    def uri(self) -> str:
        """Where it lies, as a `uri` of a recipe."""
        ...

    @property
    def name(self) -> str:
        """As above."""
        ...

    @property
    def format(self) -> str:
        """As above."""
        ...

    @property
    def remote(self) -> bool:
        """As above."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """As stored; None where that is not known."""
        ...

    def read(self, source_name: str, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """(number from 1, payload) of the records whose number is greater than `skip`.

        Raises:
            BrokenFileError: the rest of the file cannot be read.
            OSError: as the file system raises it.
            SourceError: it cannot be read at all.
        """
        ...

    def identity(self) -> str:
        """What changes when the content does, found without reading all of it."""
        ...

    def check(self, source_name: str, source: Source) -> None:
        """A cheap look before anything is read.

        Raises:
            SourceError: the recipe asks for something that the file does not have.
        """
        ...

"""What travels between reading, decoding, cleaning and packing. Plain data, cheap to send to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persianmind.text.faults import Fault

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One record, decoded.

    source: its name in the recipe.
    key: the stable identity of its *document*; records made from one document share it, so that the held-out
        split never tears a poem from its own interpretation.
    place: where to find it ("file.jsonl.gz:17"), for quarantine files and messages.
    fields: the record itself ({"text": ...}, {"instruction", "input", "output"}, {"messages": [...]}).
    part: as of a RawRecord.
    """

    source: str
    key: str
    place: str
    fields: Fields
    part: int = 0


# What a source yields for one record: bytes for its format to decode, fields, a whole record, or a fault.
Payload = bytes | Fields | Record | Fault


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: the number of whole files behind, and of records behind in the next one."""

    file: int = 0
    record: int = 0


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as it was read. `after`: the position once it is consumed; `number` counts from 1 in its
    file; `format`: the name of the format that decodes it, "" where there is nothing to decode; `part`: which
    of the records that are made of one (see parallel.PARTS)."""

    file_name: str
    format: str
    number: int
    after: Position
    payload: Payload
    part: int = 0

    @property
    def place(self) -> str:
        """File and number, for messages."""
        return f"{self.file_name}:{self.number}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be used. ends_file, file_bytes: as of a Fault."""

    file: str
    line: int
    reason: str
    sample: str | bytes = ""
    ends_file: bool = False
    file_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A good record that a filter dropped; `reason` is the filter's name."""

    place: str
    reason: str
    sample: str

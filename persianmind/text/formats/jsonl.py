"""JSON lines: an object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

from persianmind.recipe import Source
from persianmind.text.faults import BadRecordError
from persianmind.text.formats.base import ByteFile, after, decode_utf8
from persianmind.text.lines import numbered_lines
from persianmind.text.record import Fields, Payload


class JsonLines:
    """`.jsonl` and `.ndjson`."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")
    compressible = True

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """A line each."""
        return after(numbered_lines(file), skip)

    def decode(self, payload: bytes, source: Source) -> Fields:
        """One JSON object; NaN, infinities and nesting past the interpreter's limit are refused by name."""
        text = decode_utf8(payload)
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise BadRecordError("nested_too_deep") from None
        except ValueError:
            raise BadRecordError("invalid_json") from None
        if not isinstance(value, dict):
            raise BadRecordError("not_an_object")
        return value

    def check(self, file: ByteFile, source_name: str, source: Source) -> None:
        """Every record has fields of its own: nothing can be told from the file."""


def _refuse_constant(name: str) -> NoReturn:
    raise BadRecordError("nan_or_infinity")


FORMAT = JsonLines()

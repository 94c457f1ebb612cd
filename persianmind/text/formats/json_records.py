"""JSON: an object per line, or one array of objects; which of the two, the content says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from persianmind.recipe import Source
from persianmind.text.compression import first_bytes, read_chunks
from persianmind.text.faults import BadRecordError, BrokenFileError
from persianmind.text.formats.base import ByteFile, after, decode_utf8
from persianmind.text.formats.json_array import array_items
from persianmind.text.lines import numbered_lines
from persianmind.text.record import Fields, Payload

HEAD_BYTES = 1 << 16
_BEGINNING = re.compile(rb"(\xef\xbb\xbf)?\s*")
# What stands alone on the first line of an object that is written over several lines.
_SPREAD_OBJECT = re.compile(rb'\s*\{\s*("[^"]*"\s*:\s*[\[{]?\s*)?')


class Json:
    """`.jsonl`, `.ndjson` and `.json`."""

    name = "json"
    suffixes = (".jsonl", ".ndjson", ".json")
    compressible = True

    def recognises(self, head: bytes) -> bool:
        """An object, or an array of objects."""
        return re.match(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"', head) is not None

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """A line, or an item of the array, each."""
        with file.open() as handle:
            head = first_bytes(handle, file.compression, HEAD_BYTES)
        start = _BEGINNING.match(head).end()  # type: ignore[union-attr]  # it matches nothing too
        if head[start : start + 1] == b"[":
            with file.open() as handle:
                yield from after(array_items(read_chunks(handle, file.compression)), skip)
            return
        if _SPREAD_OBJECT.fullmatch(head[start:].partition(b"\n")[0].rstrip()):
            raise BrokenFileError("one_object", "the whole file is one JSON object over several lines")
        yield from after(numbered_lines(file), skip)

    def decode(self, payload: bytes | Fields, source: Source) -> Fields:
        """One JSON object; NaN, infinities and nesting past the interpreter's limit are refused by name."""
        value: Any = payload
        if isinstance(payload, bytes):
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


FORMAT = Json()

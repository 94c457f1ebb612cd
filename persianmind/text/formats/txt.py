"""Plain text: a document per line, or per paragraph where the source says so."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.recipe import Source
from persianmind.text.faults import Fault
from persianmind.text.formats.base import ByteFile, after, decode_utf8
from persianmind.text.lines import MAX_RECORD_BYTES, numbered_lines
from persianmind.text.record import Fields, Payload


class PlainText:
    """`.txt`."""

    name = "txt"
    suffixes = (".txt",)
    compressible = True

    def recognises(self, head: bytes) -> bool:
        """Any text could be one: known by name alone."""
        return False

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """A line or a paragraph each."""
        lines = numbered_lines(file)
        return after(lines if source.txt_unit == "line" else _paragraphs(lines), skip)

    def decode(self, payload: bytes, source: Source) -> Fields:
        """The whole of it is the text."""
        return {source.text_field: decode_utf8(payload)}

    def check(self, file: ByteFile, source_name: str, source: Source) -> None:
        """There are no fields that could be missing."""


def _paragraphs(lines: Iterator[tuple[int, bytes | Fault]]) -> Iterator[tuple[int, bytes | Fault]]:
    """Joins neighbouring lines (gaps in the numbering are blank lines); numbered by the last line."""
    held: list[bytes] = []
    held_bytes = last = 0
    for number, line in lines:
        if isinstance(line, Fault):
            yield number, line
            continue
        if held and number != last + 1:
            yield last, b"\n".join(held)
            held, held_bytes = [], 0
        held.append(line)
        held_bytes += len(line) + 1
        last = number
        if held_bytes > MAX_RECORD_BYTES:
            yield last, Fault("record_too_long", f"a paragraph longer than {MAX_RECORD_BYTES} bytes")
            held, held_bytes = [], 0
    if held:
        yield last, b"\n".join(held)


FORMAT = PlainText()

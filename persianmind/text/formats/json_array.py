"""The items of one JSON array, in memory that grows with the longest of them alone."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from persianmind.text.faults import BrokenFileError, Fault
from persianmind.text.lines import MAX_RECORD_BYTES

_SPACE = re.compile(r"[ \t\n\r]*")
# NaN is judged where an item is decoded, as in a line.
_SCAN = json.JSONDecoder(parse_constant=lambda name: None).raw_decode


def array_items(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | Fault]]:
    """(number from 1, bytes) of each item of an array; its opening bracket is known to be there.

    Raises:
        BrokenFileError: no JSON from some place on; what stands before it was yielded.
    """
    text, number = _Text(chunks), 0
    text.next_character()
    text.at += 1
    if text.next_character() == "]":
        return
    while True:
        number += 1
        yield number, text.take_item().encode("utf-8", "surrogateescape")
        separator = text.next_character()
        text.at += 1
        if separator == "]":
            if rest := text.next_character():
                raise BrokenFileError("corrupt_json", f"after the end of the array stands {rest!r}")
            return
        if separator != ",":
            found = f"{separator!r}" if separator else "the end of the file"
            raise BrokenFileError("corrupt_json", f"after item {number} of the array stands {found}")
        text.next_character()


class _Text:
    """What is held of a file; `at`: the first character that was not taken."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._held = ""
        self.at = 0

    def next_character(self) -> str:
        """The first one that is no white space, not taken; "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self._held, self.at).end()  # type: ignore[union-attr]  # it matches nothing too
            if self.at < len(self._held) or not self._grow():
                return self._held[self.at : self.at + 1]

    def take_item(self) -> str:
        """One whole value."""
        while True:
            try:
                end: int = _SCAN(self._held, self.at)[1]
                fault = None
            except RecursionError:
                raise BrokenFileError("nested_too_deep", "an item of the array is nested too deep") from None
            except ValueError as error:
                end, fault = -1, error
            # A number at the end of what is held may go on: only what something follows is known to be whole.
            if 0 <= end < len(self._held):
                break
            if len(self._held) - self.at > MAX_RECORD_BYTES:
                detail = f"an item of the array is longer than {MAX_RECORD_BYTES} bytes, or no JSON"
                raise BrokenFileError("record_too_long", detail)
            if not self._grow():
                if fault is None:
                    break
                raise BrokenFileError("corrupt_json", f"no JSON: {fault}") from None
        item, self.at = self._held[self.at : end], end
        return item

    def _grow(self) -> bool:
        """Reads on until twice as much is held: a long item is scanned anew some times, not at each chunk."""
        parts = [self._held[self.at :]]
        wanted = max(1, len(parts[0]))
        while wanted > 0 and (chunk := next(self._chunks, b"")):
            parts.append(self._decode(chunk))
            wanted -= len(parts[-1])
        self._held, self.at = "".join(parts), 0
        return len(parts) > 1

"""A long text in pieces: lists of its words, or copies of it, would take many times its own memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE_CHARACTERS = 1 << 16
_SPACE = re.compile(r"\s")


def text_pieces(
    text: str, characters: int = PIECE_CHARACTERS, *, before: re.Pattern[str] = _SPACE
) -> Iterator[str]:
    """The text in consecutive pieces of about this length; a text that is no longer comes whole.

    before: where it may be cut: before a match, by default white space, so that no word is in two pieces.
    """
    start = 0
    while len(text) - start > characters:
        found = before.search(text, start + characters)
        if found is None:
            break
        yield text[start : found.start()]
        start = found.start()
    yield text[start:] if start else text

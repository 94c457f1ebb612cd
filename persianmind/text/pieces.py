"""A long text in pieces: lists of its words would take many times its own memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE_CHARACTERS = 1 << 16
_SPACE = re.compile(r"\s")


def text_pieces(text: str, characters: int = PIECE_CHARACTERS) -> Iterator[str]:
    """The text in consecutive pieces of about this length, cut where white space begins.

    So no word is in two of them; a text that is no longer comes whole.
    """
    start = 0
    while len(text) - start > characters:
        found = _SPACE.search(text, start + characters)
        if found is None:
            break
        yield text[start : found.start()]
        start = found.start()
    yield text[start:] if start else text

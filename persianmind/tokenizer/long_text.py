"""Long texts in pieces: the ids of the whole text, in memory that does not grow with it.

A tokenizer holds some hundred bytes for each character while it works. So a long text is encoded in pieces
that overlap, and two neighbours are joined where, for a run of tokens, both gave the same ones at the same
places: left of it the first one knew what follows, right of it the second one knew what stands before.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

LONG_CHARACTERS = 1 << 18
PIECE_CHARACTERS = 1 << 17
OVERLAP_CHARACTERS = 1 << 12
RUN_TOKENS = 16

# (ids, the first character of each, the character after each) of a text.
Places = Sequence[int] | npt.NDArray[np.int64]
Located = tuple[Sequence[int], Places, Places]


def encode_long(
    text: str,
    encode: Callable[[str], Located],
    *,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    piece_characters: int = PIECE_CHARACTERS,
    overlap_characters: int = OVERLAP_CHARACTERS,
) -> npt.NDArray[np.uint32]:
    """The ids that `encode` gives for the whole text, uint32, shape (n,); `before` and `after` around them.

    Where two pieces agree nowhere in their overlap (one word of thousands of letters), the second is encoded
    anew from further back, in the end with the first as one piece.
    """
    ids = array("I", before)  # it grows in place: no moment holds all ids twice
    held = _Piece(text, 0, min(piece_characters, len(text)), encode)
    first = 0  # of the tokens of `held` that are not in `ids` yet
    while held.end < len(text):
        end = min(held.end + piece_characters, len(text))
        overlap = overlap_characters
        while True:
            start = max(held.start, held.end - overlap)
            following = _Piece(text, start, end, encode)
            joint = _joint(held, following, first)
            if joint is not None:
                left, right = joint
                ids.frombytes(held.ids[first:left].tobytes())
                held, first = following, right
                break
            if start == held.start:  # the two as one piece
                held = _Piece(text, held.start, end, encode)
                break
            overlap *= 4
    ids.frombytes(held.ids[first:].tobytes())
    ids.extend(after)
    return np.frombuffer(ids, dtype=np.uint32)


class _Piece:
    """The tokens of text[start:end]; `starts`, `ends`: of each, in the whole text."""

    def __init__(self, text: str, start: int, end: int, encode: Callable[[str], Located]) -> None:
        ids, starts, ends = encode(text[start:end])
        self.start, self.end = start, end
        self.ids = np.asarray(ids, dtype=np.uint32)
        self.starts = np.asarray(starts, dtype=np.int64) + start
        self.ends = np.asarray(ends, dtype=np.int64) + start


def _joint(left: _Piece, right: _Piece, first: int) -> tuple[int, int] | None:
    """(tokens of the left piece, the token of the right piece that follows them): the middle of a run of
    tokens that are the same in both; None where there is none."""
    middle = (right.start + left.end) // 2
    low = max(int(np.searchsorted(left.starts, right.start)), first) + RUN_TOKENS // 2
    candidates = np.arange(low, len(left.ids) - RUN_TOKENS // 2 + 1)
    for i in candidates[np.argsort(np.abs(left.starts[candidates] - middle), kind="stable")]:
        if left.ends[i - 1] > left.starts[i]:
            continue  # within a character that several tokens share
        for j in np.flatnonzero(right.starts == left.starts[i]):
            if _agree(left, right, int(i), int(j)):
                return int(i), int(j)
    return None


def _agree(left: _Piece, right: _Piece, i: int, j: int) -> bool:
    half = RUN_TOKENS // 2
    if j < half or j + half > len(right.ids):
        return False
    return all(
        np.array_equal(getattr(left, name)[i - half : i + half], getattr(right, name)[j - half : j + half])
        for name in ("ids", "starts", "ends")
    )

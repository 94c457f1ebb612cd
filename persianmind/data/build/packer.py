"""Packing: online best-fit with a bounded number of open sequences, and next-fit where order matters.

Pure: knows lengths, not tokens.

Figures of this against next-fit and concatenate-and-cut are in docs/data.md.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence, Sized
from typing import Generic, TypeVar

P = TypeVar("P", bound=Sized)


class BestFitPacker(Generic[P]):
    """Puts pieces into sequences of `seq_len`; a piece is never cut here and never longer than a sequence.

    A new piece goes into the open sequence that it leaves the least space in. A sequence leaves when it is
    full, or when one more open sequence than `open_sequences` would be needed: then the fullest leaves.
    """

    def __init__(self, seq_len: int, open_sequences: int, sequences: Sequence[Sequence[P]] = ()) -> None:
        """sequences: the open sequences of an earlier packer (its `open_in_order`), to go on from."""
        self.seq_len = seq_len
        self.open_sequences = open_sequences
        self._sequences: dict[int, list[P]] = {}
        self._free: list[tuple[int, int]] = []  # (free tokens, serial number), sorted
        self._serial = 0
        for sequence in sequences:
            self._open(list(sequence))

    def add(self, piece: P) -> Iterator[list[P]]:
        """Places one piece; yields the sequences that this closed (none or one).

        Raises:
            ValueError: the piece is empty or longer than a sequence.
        """
        size = len(piece)
        if not 0 < size <= self.seq_len:
            raise ValueError(f"a piece of {size} tokens does not fit sequences of {self.seq_len}")
        place = bisect_left(self._free, (size, -1))
        if place < len(self._free):
            free, serial = self._free.pop(place)
            self._sequences[serial].append(piece)
            if free == size:
                yield self._sequences.pop(serial)
            else:
                insort(self._free, (free - size, serial))
        elif size == self.seq_len:
            yield [piece]
        else:
            if len(self._free) == self.open_sequences:
                yield self._sequences.pop(self._free.pop(0)[1])
            self._open([piece])

    def finish(self) -> list[list[P]]:
        """Closes all sequences; their pieces are packed once more, longest first, to fill the last ones."""
        pieces = [piece for serial in sorted(self._sequences) for piece in self._sequences[serial]]
        pieces.sort(key=len, reverse=True)  # stable: equal lengths stay in reading order
        last: BestFitPacker[P] = BestFitPacker(self.seq_len, len(pieces) + 1)
        closed = [sequence for piece in pieces for sequence in last.add(piece)]
        self._sequences, self._free = {}, []
        return closed + last.open_in_order()

    def open_in_order(self) -> list[list[P]]:
        """The open sequences, oldest first: the state of the packer."""
        return [self._sequences[serial] for serial in sorted(self._sequences)]

    def _open(self, sequence: list[P]) -> None:
        self._sequences[self._serial] = sequence
        insort(self._free, (self.seq_len - sum(map(len, sequence)), self._serial))
        self._serial += 1


def pack_in_order(pieces: Sequence[P], seq_len: int) -> list[list[P]]:
    """Next-fit: consecutive pieces share a sequence while they fit. Less full, but in reading order."""
    sequences: list[list[P]] = []
    filled = seq_len
    for piece in pieces:
        if filled + len(piece) > seq_len:
            sequences.append([])
            filled = 0
        sequences[-1].append(piece)
        filled += len(piece)
    return sequences

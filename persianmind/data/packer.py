"""Online best-fit packing with a bounded number of open rows. Pure: knows lengths, not tokens.

Figures of this against next-fit and concatenate-and-cut are in docs/data.md.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence, Sized
from typing import Generic, TypeVar

P = TypeVar("P", bound=Sized)


class BestFitPacker(Generic[P]):
    """Puts pieces into rows of `row_length`; a piece is never cut here and never longer than a row.

    A new piece goes into the open row that it leaves the least room in. A row leaves when it is full, or when
    one more open row than `open_rows` would be needed: then the fullest leaves.
    """

    def __init__(self, row_length: int, open_rows: int, rows: Sequence[Sequence[P]] = ()) -> None:
        """rows: the open rows of an earlier packer (its `open_in_order`), to go on as it would have."""
        self.row_length = row_length
        self.open_rows = open_rows
        self._rows: dict[int, list[P]] = {}
        self._rooms: list[tuple[int, int]] = []  # (room left, serial number), sorted
        self._serial = 0
        for row in rows:
            self._open(list(row))

    def add(self, piece: P) -> Iterator[list[P]]:
        """Places one piece; yields the rows that this closed (none or one).

        Raises:
            ValueError: the piece is empty or longer than a row.
        """
        size = len(piece)
        if not 0 < size <= self.row_length:
            raise ValueError(f"a piece of {size} tokens does not fit rows of {self.row_length}")
        place = bisect_left(self._rooms, (size, -1))
        if place < len(self._rooms):
            room, serial = self._rooms.pop(place)
            self._rows[serial].append(piece)
            if room == size:
                yield self._rows.pop(serial)
            else:
                insort(self._rooms, (room - size, serial))
        elif size == self.row_length:
            yield [piece]
        else:
            if len(self._rooms) == self.open_rows:
                yield self._rows.pop(self._rooms.pop(0)[1])
            self._open([piece])

    def finish(self) -> list[list[P]]:
        """Closes all rows; their pieces are packed once more, longest first, to fill the last rows."""
        pieces = [piece for serial in sorted(self._rows) for piece in self._rows[serial]]
        pieces.sort(key=len, reverse=True)  # stable: equal lengths stay in reading order
        last: BestFitPacker[P] = BestFitPacker(self.row_length, len(pieces) + 1)
        closed = [row for piece in pieces for row in last.add(piece)]
        self._rows, self._rooms = {}, []
        return closed + last.open_in_order()

    def open_in_order(self) -> list[list[P]]:
        """The open rows, oldest first: the state of the packer."""
        return [self._rows[serial] for serial in sorted(self._rows)]

    def _open(self, row: list[P]) -> None:
        self._rows[self._serial] = row
        insort(self._rooms, (self.row_length - sum(map(len, row)), self._serial))
        self._serial += 1

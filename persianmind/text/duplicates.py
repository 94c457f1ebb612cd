"""Exact and near duplicates within a source, in memory that does not grow with the corpus."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt
import xxhash

WAYS = 4
FIRST_ENTRIES = 1 << 14
MAX_ENTRIES = 1 << 22  # 32 MiB of 64-bit fingerprints: the last four million documents or so


def text_fingerprint(*parts: str) -> int:
    """64 bits that stand for a text (or for the turns of a dialogue)."""
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part.encode("utf-8"))
        digest.update(b"\0")
    return digest.intdigest()


class FingerprintSet:
    """A set of 64-bit fingerprints that forgets instead of growing past `max_entries`.

    A hash table of four-way sets. It never claims to hold what was not added (but for equal fingerprints: about
    1 in 10^4 for a hundred million documents), so no unique document is lost; past its size it overlooks
    duplicates that lie far apart. Deterministic, and `table()` is its whole state.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, table: npt.NDArray[np.uint64] | None = None) -> None:
        self.max_entries = max_entries
        if table is None:
            table = np.zeros(min(FIRST_ENTRIES, max_entries), dtype=np.uint64)
        self._table = array("Q", table.tobytes())
        self._held = int(np.count_nonzero(table))

    def add(self, fingerprint: int) -> bool:
        """Adds one; returns whether it is new (was not held)."""
        value = fingerprint or 1  # 0 marks an empty place
        table = self._table
        first = (value % (len(table) // WAYS)) * WAYS
        free = -1
        for place in range(first, first + WAYS):
            held = table[place]
            if held == value:
                return False
            if held == 0 and free < 0:
                free = place
        if free >= 0:
            self._held += 1
        else:
            free = first + (value >> 62)  # two bits that the place in the table does not hang on
        table[free] = value
        if self._held * 2 > len(table) and len(table) < self.max_entries:
            self._grow()
        return True

    def table(self) -> npt.NDArray[np.uint64]:
        """The state: give it to the constructor to go on."""
        return np.frombuffer(self._table.tobytes(), dtype=np.uint64)

    def _grow(self) -> None:
        old = self._table
        self._table = array("Q", bytes(8 * min(2 * len(old), self.max_entries)))
        self._held = 0
        for value in old:
            if value:
                self.add(value)

"""Duplicates within a source and of held-out text: one rule, in memory that does not grow with the corpus."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from persianmind.common.pieces import text_pieces
from persianmind.recipe import Quality
from persianmind.text.near import NearDuplicates, NearSignature, near_signature

PROBES = 64
FIRST_ENTRIES = 1 << 14
MAX_ENTRIES = 1 << 22  # 32 MiB of 64-bit fingerprints: the last four million documents or so


def text_fingerprint(*parts: str) -> int:
    """64 bits that stand for a text (or for the turns of a dialogue), whatever white space is in it."""
    digest = xxhash.xxh3_64()
    for part in parts:
        between = b""
        for piece in text_pieces(part):
            if words := piece.split():
                digest.update(between + " ".join(words).encode("utf-8"))
                between = b" "
        digest.update(b"\0")
    return digest.intdigest()


class FingerprintSet:
    """A set of 64-bit fingerprints that forgets instead of growing past `max_entries`.

    A hash table with linear probing over at most 64 places. It never claims to hold what was not added (but
    for two texts of one fingerprint: about 1 chance in 3,000 of one such pair among a hundred million
    documents), so no unique document is lost; past its size it overlooks duplicates that lie far apart.
    Deterministic, and `table()` is its whole state.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, table: npt.NDArray[np.uint64] | None = None) -> None:
        self.max_entries = max_entries
        if max_entries & (max_entries - 1):
            raise ValueError(f"max_entries={max_entries} is no power of two")
        if table is None:
            table = np.zeros(min(FIRST_ENTRIES, max_entries), dtype=np.uint64)
        self._table = array("Q", table.tobytes())
        self._held = int(np.count_nonzero(table))

    def add(self, fingerprint: int) -> bool:
        """Adds one; returns whether it is new (was not held)."""
        value = fingerprint or 1  # 0 marks an empty place
        table, mask = self._table, len(self._table) - 1
        first = value & mask
        free = -1
        for place in range(first, first + PROBES):
            held = table[place & mask]
            if held == value:
                return False
            if held == 0:
                free = place & mask
                break
        if free >= 0:
            self._held += 1
        else:  # full: forget one of the 64, chosen by bits that the place does not depend on
            free = (first + (value >> 58)) & mask
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


def wanted_signature(texts: tuple[str, ...], quality: Quality) -> NearSignature | None:
    """The signature of a document where near duplicates are looked for, else None."""
    return near_signature("\n".join(texts)) if quality.enabled and quality.near_duplicates else None


class DuplicateRule:
    """Which documents of one source are the same text as one that is held out, or as one before them.

    evaluated: fingerprints of the held-out texts, of all sources. Documents come in reading order.
    """

    def __init__(self, quality: Quality, evaluated: frozenset[int]) -> None:
        self._evaluated = evaluated
        self._looks_for_exact = quality.enabled and quality.exact_duplicates
        self._exact = FingerprintSet()
        self._near = NearDuplicates(quality.near_duplicate_threshold)

    def reason(self, fingerprint: int, signature: NearSignature | None = None) -> str | None:
        """The name of what drops a document, or None; then it is remembered.

        signature: its `wanted_signature`; without one near duplicates are not looked for.
        """
        if fingerprint in self._evaluated:
            return "held_out_text"
        if self._looks_for_exact and not self._exact.add(fingerprint):
            return "exact_duplicate"
        if signature is not None and not self._near.add(signature):
            return "near_duplicate"
        return None

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """(tables by name, number of signatures ever added): all that `restore` needs."""
        signatures, added = self._near.state()
        return {"exact": self._exact.table(), "near": signatures}, added

    def restore(self, tables: Mapping[str, npt.NDArray[Any]], added: int) -> None:
        """Goes back to a recorded state."""
        self._exact = FingerprintSet(table=tables["exact"])
        self._near.restore(tables["near"], added)

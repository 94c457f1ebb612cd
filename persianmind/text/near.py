"""Near duplicates within a source by MinHash, in memory that does not grow with the corpus."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NearSignature = npt.NDArray[np.uint32]
PERMUTATIONS = 128
BANDS = 16
MAX_SHINGLE_WORDS = 5
FIRST_SIGNATURES = 1 << 10
MAX_SIGNATURES = 1 << 17  # 64 MiB of signatures and 16 MiB of bands: the last 131,072 documents
_MINHASH_SEED = 42


def near_signature(text: str) -> NearSignature:
    """[128] uint32 MinHash of the text's word shingles: five words, fewer for texts of under twenty."""
    from rensa import RMinHash

    words = text.split()
    size = min(MAX_SHINGLE_WORDS, max(1, len(words) // 4))
    minhash = RMinHash(num_perm=PERMUTATIONS, seed=_MINHASH_SEED)
    minhash.update([" ".join(words[i : i + size]) for i in range(len(words) - size + 1)])
    return np.array(minhash.digest(), dtype=np.uint32)


class NearDuplicates:
    """Signatures of the last documents, found again by bands, compared in full before a document is dropped.

    With 16 bands of 8, a document of Jaccard similarity 0.85 to a held one is met with probability 0.994; the
    comparison estimates the similarity with a standard error of 0.03. Past `max_signatures` the oldest are
    forgotten, and a band remembers one document: what is forgotten is kept in the corpus, never lost.
    """

    def __init__(self, threshold: float, max_signatures: int = MAX_SIGNATURES) -> None:
        self.threshold = threshold
        self._max = max_signatures
        self._added = 0
        self._allocate(min(FIRST_SIGNATURES, max_signatures))

    def add(self, signature: NearSignature) -> bool:
        """Remembers the document unless one like it is held; returns whether it is new."""
        slots = self._slots(signature)
        candidates = self._bands[np.arange(BANDS), slots]
        for candidate in np.unique(candidates[candidates >= 0]):
            if float(np.mean(self._ring[candidate] == signature)) >= self.threshold:
                return False
        if self._added == len(self._ring) < self._max:
            self._grow()
            slots = self._slots(signature)
        self._remember(signature, slots)
        return True

    def state(self) -> tuple[npt.NDArray[np.uint32], int]:
        """(signatures in their places, number ever added): all that `restore` needs."""
        return self._ring[: min(self._added, len(self._ring))].copy(), self._added

    def restore(self, signatures: npt.NDArray[np.uint32], added: int) -> None:
        """Goes back to a recorded state."""
        size = FIRST_SIGNATURES
        while size < len(signatures):
            size *= 2
        self._allocate(min(size, self._max))
        held = len(signatures)
        first = added % held if added > held else 0  # a full ring: its oldest stands where the next will go
        self._added = added - held
        self._ring[:held] = signatures
        self._bands.fill(-1)
        for place in range(first, first + held):
            self._remember(signatures[place % held], self._slots(signatures[place % held]))

    def _allocate(self, size: int) -> None:
        self._ring = np.zeros((size, PERMUTATIONS), dtype=np.uint32)
        self._bands = np.full((BANDS, 2 * size), -1, dtype=np.int32)

    def _grow(self) -> None:
        old, added = self._ring, self._added
        self._allocate(min(2 * len(old), self._max))
        self._added = 0
        for signature in old[:added]:
            self._remember(signature, self._slots(signature))

    def _remember(self, signature: NearSignature, slots: npt.NDArray[np.int64]) -> None:
        place = self._added % len(self._ring)
        if self._added >= len(self._ring):  # forget the oldest wholly: its bands must not lead to the new one
            old = self._slots(self._ring[place])
            stale = self._bands[np.arange(BANDS), old] == place
            self._bands[np.arange(BANDS)[stale], old[stale]] = -1
        self._ring[place] = signature
        self._bands[np.arange(BANDS), slots] = place
        self._added += 1

    def _slots(self, signature: NearSignature) -> npt.NDArray[np.int64]:
        """[BANDS] place of each band of the signature in the band tables."""
        bands = signature.reshape(BANDS, -1).astype(np.uint64)
        mixed = (bands * _BAND_FACTORS).sum(axis=1, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _BAND_FACTORS[0]
        slots: npt.NDArray[np.int64] = ((mixed >> np.uint64(33)) % np.uint64(self._bands.shape[1])).astype(
            np.int64
        )
        return slots


_BAND_FACTORS = np.array(
    [(0x9E3779B97F4A7C15 * (2 * i + 1)) & (2**64 - 1) for i in range(PERMUTATIONS // BANDS)], dtype=np.uint64
)

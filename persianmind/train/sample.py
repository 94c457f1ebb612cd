"""Real tokens for the self-tests, chosen so that they reach everything that is checked.

A stage of the base's own language has no new token at all, and the first tokens of a mixture may have none:
new embeddings would get no gradient from them, and a sound run would be stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from persianmind.engine.base import Batch
from persianmind.model.loss import IGNORED

SAMPLE_TOKENS = 256
LONGEST_DOCUMENT = 128
EVERY = 8  # of this many tokens one becomes a new one, where there are none


def moving_sequence(batch: Batch, tokens: int, base_vocab: int, added: int) -> Batch:
    """[1, tokens] out of a micro-batch: the first part that has targets, and new ids that lead to some. Where
    no part has, it is given some.

    Args:
        batch: [B, L].
        tokens: how long, at most.
    """
    count, length = batch["input_ids"].shape
    parts = [
        {
            name: array[row : row + 1, start : start + tokens] if array.ndim == 2 else array[row : row + 1]
            for name, array in batch.items()
        }
        for row in range(count)
        for start in range(0, length, tokens)
    ]
    chosen = max(parts, key=lambda part: (_moves_new(part, base_vocab), bool(_is_target(part).any())))
    chosen = {name: array.copy() for name, array in chosen.items()}
    if not _is_target(chosen).any():
        chosen["labels"][0, :-1] = chosen["input_ids"][0, 1:]
    if added and not _moves_new(chosen, base_vocab):
        places = np.flatnonzero(_is_target(chosen)[0])[::EVERY]
        chosen["input_ids"][0, places] = base_vocab + np.arange(len(places)) % added
    return chosen


def _is_target(batch: Batch) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = batch["labels"] != IGNORED
    return found


def _moves_new(batch: Batch, base_vocab: int) -> bool:
    return bool(((batch["input_ids"] >= base_vocab) & _is_target(batch)).any())


def sample_documents(batches: Sequence[Batch], base_vocab: int, added: int) -> list[NDArray[np.int64]]:
    """Beginnings of documents, at most `SAMPLE_TOKENS` ids in all and two ids at least in each, new ids among
    them; those that are trained on come first."""
    found: list[tuple[bool, NDArray[np.int64]]] = []
    for batch in batches:
        for row, positions_L in enumerate(batch["position_ids"]):
            edges = sorted({0, *np.flatnonzero(positions_L == 0).tolist(), len(positions_L)})
            for start, stop in pairwise(edges):
                is_trained = bool(_is_target(batch)[row, start:stop].any())
                found.append((is_trained, batch["input_ids"][row, start:stop].copy()))
    documents = _cut([ids for _, ids in sorted(found, key=lambda one: not one[0])])
    if added and not any((ids >= base_vocab).any() for ids in documents):
        for ids in documents:
            ids[::EVERY] = base_vocab + np.arange(len(ids[::EVERY])) % added
    return documents


def in_base_ids(
    documents: Sequence[NDArray[np.int64]], pieces: Sequence[Sequence[int]], base_vocab: int
) -> list[NDArray[np.int64]]:
    """The same with every new id as the base ids that spelled it, cut to as many ids."""
    spelled = [
        [one for i in ids.tolist() for one in ([i] if i < base_vocab else pieces[i - base_vocab])]
        for ids in documents
    ]
    return _cut([np.array(ids, dtype=np.int64) for ids in spelled])


def _cut(documents: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    left, cut = SAMPLE_TOKENS, []
    for ids in documents:
        part = ids[: min(LONGEST_DOCUMENT, left)]
        if len(part) >= 2:
            cut.append(part)
            left -= len(part)
    return cut

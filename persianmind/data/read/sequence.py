"""One packed sequence as the model gets it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One packed sequence, all arrays int64 [L].

    position_ids restart at 0 with every document, and once more where the padding begins.
    labels are already shifted: labels[t] is token t + 1 where both are of one document and t + 1 is a loss
    target, else -100.
    """

    input_ids: npt.NDArray[np.int64]
    position_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


def build_sequence(
    tokens_L: npt.NDArray[np.int64],
    doc_lengths: npt.NDArray[np.int32],
    targets_L: npt.NDArray[np.bool_] | None,
) -> TokenSequence:
    """Positions and shifted labels of one sequence.

    Args:
        tokens_L: [L] token ids; past the documents: padding.
        doc_lengths: tokens of each document, in order; they add up to at most L.
        targets_L: [L] which tokens are loss targets, a document's first never; None: all the others.
    """
    length = len(tokens_L)
    padding = length - int(doc_lengths.sum())
    runs = np.append(doc_lengths, padding).astype(np.int64)
    starts = np.cumsum(runs) - runs
    positions_L = np.arange(length, dtype=np.int64) - np.repeat(starts, runs)
    is_target_L = positions_L > 0
    is_target_L[length - padding :] = False
    if targets_L is not None:
        is_target_L &= targets_L
    labels_L = np.full(length, IGNORED, dtype=np.int64)
    labels_L[:-1] = np.where(is_target_L[1:], tokens_L[1:], IGNORED)
    return TokenSequence(tokens_L, positions_L, labels_L)

"""Bits per byte and perplexity on held-out text.

Bits per byte do not depend on the tokenizer, so scores of the base and of the expanded model compare:
bits_per_byte = summed negative log-likelihood in nats / (ln 2 * UTF-8 bytes). Perplexity is per token of
the tokenizer that was used and does not compare across vocabularies.

Every token of a text is predicted exactly once: each piece of at most seq_len tokens is led by the
tokenizer's BOS (or EOS where there is none), which is given, never predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persianmind.data.build.packer import pack_in_order
from persianmind.data.read.batches import Batch, stack_sequences
from persianmind.data.read.sequence import build_sequence
from persianmind.tokenizer import FolderTokenizer


@dataclass(frozen=True, slots=True)
class HeldOutSequences:
    """Held-out text of one language as packed sequences ([1, <= seq_len] each) and its size."""

    sequences: list[Batch]
    n_tokens: int
    n_bytes: int
    n_documents: int


@dataclass(frozen=True, slots=True)
class Score:
    """What one evaluation gives for one language."""

    bits_per_byte: float
    perplexity: float
    n_tokens: int
    n_bytes: int
    n_documents: int


def held_out_sequences(texts: Iterable[str], tokenizer_dir: Path, seq_len: int) -> HeldOutSequences:
    """Tokenises texts and packs their pieces into sequences, in order, each piece whole.

    Raises:
        DataError: the folder holds no usable tokenizer.
    """
    tokenizer = FolderTokenizer(tokenizer_dir)
    lead, size = tokenizer.bos_or_eos_id, seq_len - 1
    pieces: list[list[int]] = []
    n_tokens = n_bytes = n_documents = 0
    for text in texts:
        ids = tokenizer.encode([text], parse_special=True)[0]
        pieces += [[lead, *ids[start : start + size]] for start in range(0, len(ids), size)]
        n_tokens += len(ids)
        n_bytes += len(text.encode("utf-8"))
        n_documents += 1
    sequences = [_batch(one) for one in pack_in_order(pieces, seq_len)]
    return HeldOutSequences(sequences, n_tokens, n_bytes, n_documents)


def score(
    held_out: HeldOutSequences,
    summed_loss: Callable[[Sequence[Batch]], float],
    *,
    rank: int,
    world_size: int,
    sum_over_ranks: Callable[[float], float],
) -> Score:
    """Shares the sequences over the ranks and adds up; every rank gets the same score.

    Args:
        summed_loss: batches to the sum of their losses, nats.
        sum_over_ranks: a number of this rank to the sum over all; all ranks call it together.
    """
    nats = sum_over_ranks(summed_loss(held_out.sequences[rank::world_size]))
    return Score(
        bits_per_byte=nats / (math.log(2) * max(1, held_out.n_bytes)),
        perplexity=math.exp(min(nats / max(1, held_out.n_tokens), 700.0)),
        n_tokens=held_out.n_tokens,
        n_bytes=held_out.n_bytes,
        n_documents=held_out.n_documents,
    )


def _batch(pieces: Sequence[Sequence[int]]) -> Batch:
    """[1, L] arrays of one sequence."""
    ids = np.concatenate([np.asarray(piece, dtype=np.int64) for piece in pieces])
    return stack_sequences(
        [build_sequence(ids, np.array([len(one) for one in pieces], dtype=np.int32), None)]
    )

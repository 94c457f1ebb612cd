"""Bits per byte on held-out text, by document, with an interval.

Bits per byte do not depend on the tokenizer, so scores of the base and of the expanded model compare:
bits_per_byte = summed negative log-likelihood in nats / (ln 2 * UTF-8 bytes). Perplexity is per token of
the tokenizer that was used and does not compare across vocabularies.

Every token of a text is predicted exactly once, in windows as windows.py cuts them: the tokenizer's BOS (or
EOS where there is none) leads the first, the token before leads each later one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from persianmind.data.build.packer import pack_in_order
from persianmind.data.read.batches import Batch, stack_sequences
from persianmind.data.read.sequence import build_sequence
from persianmind.evaluate.stats import ConfidenceInterval, bootstrap_ratio
from persianmind.evaluate.windows import Window, rolling_windows
from persianmind.tokenizer import FolderTokenizer

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutSequences:
    """Held-out text of one language as packed sequences ([1, <= seq_len] each).

    owners: of each sequence, the document of each of its targets, in their order. bytes_N, characters_N,
    words_N, tokens_N: of each document. tokenizer: its fingerprint.
    """

    sequences: list[Batch]
    owners: list[NDArray[np.int64]]
    bytes_N: Floats
    characters_N: Floats
    words_N: Floats
    tokens_N: Floats
    tokenizer: str = ""

    @property
    def n_tokens(self) -> int:
        """That are predicted."""
        return int(self.tokens_N.sum())

    @property
    def n_bytes(self) -> int:
        """Of the text in UTF-8."""
        return int(self.bytes_N.sum())

    @property
    def n_documents(self) -> int:
        """How many texts."""
        return len(self.bytes_N)


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """What one evaluation gives for one language. nats_N: of each document. interval: of bits_per_byte.
    new_nats, new_tokens: those of the text's tokens that the base did not have."""

    bits_per_byte: float
    interval: ConfidenceInterval
    nats_N: Floats
    new_nats: float
    new_tokens: int


def held_out_sequences(texts: Iterable[str], tokenizer_dir: Path, seq_len: int) -> HeldOutSequences:
    """Tokenises texts and packs their windows into sequences, in order, each window whole.

    Raises:
        DataError: the folder holds no usable tokenizer.
    """
    tokenizer = FolderTokenizer(tokenizer_dir)
    sizes: list[tuple[int, int, int, int]] = []
    pieces: list[_Piece] = []
    for number, text in enumerate(texts):
        ids = tokenizer.encode([text], parse_special=True)[0]
        # A sequence holds what is given and what is predicted, so a window is one token shorter.
        windows = rolling_windows(ids, tokenizer.bos_or_eos_id, seq_len - 1)
        pieces += [_Piece(number, window) for window in windows]
        sizes.append((len(text.encode("utf-8")), len(text), len(text.split()), len(ids)))
    packed = pack_in_order(pieces, seq_len)
    columns = np.array(sizes, dtype=np.float64).reshape(-1, 4).T
    return HeldOutSequences(
        [_batch(one) for one in packed],
        [np.repeat([p.document for p in one], [len(p.window.predicted) for p in one]) for one in packed],
        bytes_N=columns[0],
        characters_N=columns[1],
        words_N=columns[2],
        tokens_N=columns[3],
        tokenizer=tokenizer.fingerprint(),
    )


def score(
    held_out: HeldOutSequences,
    target_losses: Callable[[Sequence[Batch]], Sequence[Floats]],
    *,
    rank: int,
    world_size: int,
    sum_over_ranks: Callable[[Sequence[float]], Sequence[float]],
    base_vocab: int | None = None,
) -> Score:
    """Shares the sequences over the ranks and adds up by document; every rank gets the same score.

    Args:
        target_losses: batches to the loss of each of their targets, nats.
        sum_over_ranks: numbers of this rank to their sums over all; all ranks call it together.
        base_vocab: ids from here on are new.
    """
    mine = slice(rank, None, world_size)
    sequences, owners = held_out.sequences[mine], held_out.owners[mine]
    nats_N = np.zeros(held_out.n_documents)
    new_nats = new_tokens = 0.0
    for batch, owner_T, losses_T in zip(sequences, owners, target_losses(sequences), strict=True):
        np.add.at(nats_N, owner_T, losses_T)
        if base_vocab is not None:
            labels_T = batch["labels"][batch["labels"] >= 0]
            new_nats += float(losses_T[labels_T >= base_vocab].sum())
            new_tokens += int((labels_T >= base_vocab).sum())
    *summed, new_nats, new_tokens = sum_over_ranks([*nats_N.tolist(), new_nats, new_tokens])
    nats_N = np.array(summed, dtype=np.float64)
    bits_N = nats_N / math.log(2)
    return Score(
        bits_per_byte=float(bits_N.sum()) / max(1, held_out.n_bytes),
        interval=bootstrap_ratio(bits_N, held_out.bytes_N),
        nats_N=nats_N,
        new_nats=new_nats,
        new_tokens=int(new_tokens),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    document: int
    window: Window

    def __len__(self) -> int:
        return len(self.window.ids)


def _batch(pieces: Sequence[_Piece]) -> Batch:
    """[1, L] arrays of one sequence; what a window is given is no target."""
    ids = np.concatenate([np.asarray(piece.window.ids, dtype=np.int64) for piece in pieces])
    is_target = np.concatenate([np.arange(len(piece)) >= len(piece.window.given) for piece in pieces])
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
    return stack_sequences([build_sequence(ids, lengths, is_target)])

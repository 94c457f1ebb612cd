"""Writing one token shard: sequences of equal length in one safetensors file (read by data/read/shard.py).

Legend: S sequences of the shard, L sequence length, D documents (pieces) of all sequences together.

    tokens            [S, L]            uint16 or uint32; past a sequence's documents: the pad id
    doc_lengths       [D]               int32, in sequence order
    sequence_offsets  [S + 1]           int64; sequence i has documents sequence_offsets[i] to [i + 1]
    targets           [S, ceil(L / 8)]  uint8, instruction shards only: packed bits, 1 = a loss target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import save

from persianmind.common.atomic import write_bytes
from persianmind.data.manifest import ShardEntry
from persianmind.tokenizer import Tokens

SMALL_VOCABULARY = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Tokens that are one document of a sequence. targets: bool per token; None: all but the first."""

    tokens: Tokens
    targets: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


PackedSequence = Sequence[Piece]


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """uint16 while every id fits."""
    return np.uint16 if vocab_size <= SMALL_VOCABULARY else np.uint32


def split_document(tokens: Tokens, seq_len: int, targets: npt.NDArray[np.bool_] | None = None) -> list[Piece]:
    """A document as consecutive pieces no longer than a sequence; joined they are the document."""
    starts = range(0, len(tokens), seq_len)
    return [
        Piece(tokens[s : s + seq_len], None if targets is None else targets[s : s + seq_len]) for s in starts
    ]


def target_count(piece: Piece) -> int:
    """Loss targets of a piece; nothing stands before its first token."""
    if piece.targets is None:
        return len(piece) - 1
    return int(piece.targets[1:].sum())


def write_shard(
    folder: Path, number: int, sequences: Sequence[PackedSequence], seq_len: int, vocab_size: int, pad_id: int
) -> ShardEntry:
    """Writes one shard whole or not at all; the same sequences give the same bytes."""
    arrays = shard_arrays(sequences, seq_len, vocab_size, pad_id)
    content = save(arrays)
    name = f"shard-{number:06d}.safetensors"
    write_bytes(folder / name, content)
    return ShardEntry(
        file=name,
        sequences=len(sequences),
        tokens=int(arrays["doc_lengths"].sum()),
        bytes=len(content),
        hash=xxhash.xxh3_128(content).hexdigest(),
    )


def shard_arrays(
    sequences: Sequence[PackedSequence], seq_len: int, vocab_size: int, pad_id: int
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the legend above."""
    tokens_SL = np.full((len(sequences), seq_len), pad_id, dtype=token_dtype(vocab_size))
    targets_SL = np.zeros((len(sequences), seq_len), dtype=np.bool_)
    lengths: list[int] = []
    offsets = [0]
    masked = False
    for i, sequence in enumerate(sequences):
        start = 0
        for piece in sequence:
            end = start + len(piece)
            tokens_SL[i, start:end] = piece.tokens
            if piece.targets is not None:
                masked = True
                targets_SL[i, start + 1 : end] = piece.targets[1:]  # nothing stands before a first token
            lengths.append(len(piece))
            start = end
        offsets.append(len(lengths))
    arrays: dict[str, npt.NDArray[Any]] = {
        "tokens": tokens_SL,
        "doc_lengths": np.array(lengths, dtype=np.int32),
        "sequence_offsets": np.array(offsets, dtype=np.int64),
    }
    if masked:
        arrays["targets"] = np.packbits(targets_SL, axis=1)
    return arrays

"""Bits per byte and perplexity on held-out text.

Bits per byte do not depend on the tokenizer, so sequences of the base and of the expanded model compare:
bits_per_byte = summed negative log-likelihood in nats / (ln 2 * UTF-8 bytes). Perplexity is per token of
the tokenizer that was used and does not compare across vocabularies.

Every token of a text is predicted exactly once: each piece of at most seq_len tokens is led by the
tokenizer's BOS (or EOS where there is none), which is given, never predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batch = dict[str, NDArray[np.int64]]
IGNORED = -100


@dataclass(frozen=True, slots=True)
class HeldOutSequences:
    """Held-out text of one language as packed sequences ([1, <= seq_len] each) and its size."""

    sequences: list[Batch]
    tokens: int
    utf8_bytes: int
    documents: int


@dataclass(frozen=True, slots=True)
class Score:
    """What one evaluation gives for one language."""

    bits_per_byte: float
    perplexity: float
    tokens: int
    bytes: int
    documents: int

    def as_json(self) -> dict[str, Any]:
        """The sequence of results.json."""
        return asdict(self)


def held_out_sequences(
    texts: Iterable[tuple[str, str]], tokenizer_dir: Path, seq_len: int
) -> HeldOutSequences:
    """Tokenises (key, text) pairs and packs the pieces into sequences, in order, each piece whole."""
    encode, lead = _encoder(tokenizer_dir)
    pieces: list[list[int]] = []
    tokens = utf8_bytes = documents = 0
    for _, text in texts:
        ids = encode(text)
        room = seq_len - 1
        pieces += [[lead, *ids[start : start + room]] for start in range(0, len(ids), room)]
        tokens += len(ids)
        utf8_bytes += len(text.encode("utf-8"))
        documents += 1
    return HeldOutSequences(_pack(pieces, seq_len), tokens, utf8_bytes, documents)


def score(
    held_out: HeldOutSequences,
    summed_loss: Callable[[Sequence[Batch]], float],
    *,
    rank: int,
    world_size: int,
    sum_over_ranks: Callable[[float], float],
) -> Score:
    """Shares the sequences over the ranks and adds up; every rank gets the same score."""
    nats = sum_over_ranks(summed_loss(held_out.sequences[rank::world_size]))
    return Score(
        bits_per_byte=nats / (math.log(2) * max(1, held_out.utf8_bytes)),
        perplexity=math.exp(min(nats / max(1, held_out.tokens), 700.0)),
        tokens=held_out.tokens,
        bytes=held_out.utf8_bytes,
        documents=held_out.documents,
    )


def _encoder(tokenizer_dir: Path) -> tuple[Callable[[str], list[int]], int]:
    """(text -> ids, the leading id); a base that has only a SentencePiece model is read by SentencePiece."""
    path = tokenizer_dir / "tokenizer.json"
    if path.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids), bos_or_eos(
            tokenizer_dir
        )
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(tokenizer_dir / "tokenizer.model"))
    bos = int(processor.bos_id())
    return lambda text: list(processor.encode(text)), bos if bos >= 0 else int(processor.eos_id())


def bos_or_eos(tokenizer_dir: Path) -> int:
    """The id of BOS, or of EOS for tokenizers without one."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir, local_files_only=True)
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(found or 0)


def _pack(pieces: Sequence[list[int]], seq_len: int) -> list[Batch]:
    sequences: list[Batch] = []
    open_row: list[list[int]] = []
    filled = 0
    for piece in pieces:
        if open_row and filled + len(piece) > seq_len:
            sequences.append(_sequence(open_row))
            open_row, filled = [], 0
        open_row.append(piece)
        filled += len(piece)
    return [*sequences, _sequence(open_row)] if open_row else sequences


def _sequence(pieces: Sequence[list[int]]) -> Batch:
    """[1, L] arrays; labels are shifted inside each piece, positions restart at each piece."""
    ids = np.concatenate([np.asarray(piece, dtype=np.int64) for piece in pieces])
    positions = np.concatenate([np.arange(len(piece), dtype=np.int64) for piece in pieces])
    labels = np.concatenate([np.asarray([*piece[1:], IGNORED], dtype=np.int64) for piece in pieces])
    return {"input_ids": ids[None], "position_ids": positions[None], "labels": labels[None]}

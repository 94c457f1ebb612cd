"""Held-out scoring: every token predicted once, bytes counted once, ranks agree with one process."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from persianmind.data.read.batches import Batch
from persianmind.evaluate.text import held_out_sequences, score
from persianmind.model.bases import resolve_base
from persianmind.tokenizer import FolderTokenizer

TEXTS = ["the import statement " * 30, "سلام دنیا", "x = 1\n"]


@pytest.fixture(scope="module")
def tokenizer_dir() -> Path:
    return resolve_base("random://llama")


def test_every_token_is_predicted_exactly_once(tokenizer_dir: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    held_out = held_out_sequences(TEXTS, tokenizer_dir, 32)
    predicted = [int(x) for sequence in held_out.sequences for x in sequence["labels"][0] if x != -100]
    assert predicted == [token for ids in expected for token in ids]
    assert held_out.n_tokens == len(predicted)
    assert held_out.n_bytes == sum(len(text.encode()) for text in TEXTS)
    assert all(sequence["input_ids"].shape[1] <= 32 for sequence in held_out.sequences)


def test_positions_restart_where_a_piece_is_led(tokenizer_dir: Path) -> None:
    lead = FolderTokenizer(tokenizer_dir).bos_or_eos_id
    for sequence in held_out_sequences(TEXTS, tokenizer_dir, 64).sequences:
        starts = np.flatnonzero(sequence["position_ids"][0] == 0)
        assert starts[0] == 0 and (sequence["input_ids"][0][starts] == lead).all()


def test_score_is_the_formula_and_does_not_depend_on_ranks(tokenizer_dir: Path) -> None:
    held_out = held_out_sequences(TEXTS, tokenizer_dir, 32)

    def uniform(sequences: list[Batch]) -> float:
        return sum(int((sequence["labels"] >= 0).sum()) for sequence in sequences) * math.log(1024)

    alone = score(held_out, uniform, rank=0, world_size=1, sum_over_ranks=lambda x: x)  # type: ignore[arg-type]
    assert alone.perplexity == pytest.approx(1024)
    assert alone.bits_per_byte == pytest.approx(10 * held_out.n_tokens / held_out.n_bytes)
    shares = [uniform(held_out.sequences[rank::3]) for rank in range(3)]
    for rank in range(3):
        shared = score(
            held_out,
            uniform,
            rank=rank,
            world_size=3,
            sum_over_ranks=lambda x: sum(shares),  # type: ignore[arg-type]
        )
        assert shared.bits_per_byte == pytest.approx(alone.bits_per_byte)

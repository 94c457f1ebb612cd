"""Held-out scoring: every token predicted once, bytes counted once, ranks agree with one process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from persianmind.data.read.batches import Batch
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.text import Floats, held_out_sequences, score
from persianmind.model.adapted import build_adapted
from persianmind.model.documents import model_inputs
from persianmind.tokenizer import FolderTokenizer
from tests.evaluate.small_model import base, plain_log_likelihood, small_model
from tests.model.helpers import make_recipe

TEXTS = ["the import statement " * 60, "سلام دنیا", "x = 1\n"]


@pytest.fixture(scope="module")
def tokenizer_dir() -> Path:
    return base()


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
    owners = [int(one) for owner in held_out.owners for one in owner]
    assert owners == [number for number, ids in enumerate(expected) for _ in ids]


def test_a_text_is_led_once_and_goes_on_behind_its_own_tokens(tokenizer_dir: Path) -> None:
    tokenizer = FolderTokenizer(tokenizer_dir)
    held_out = held_out_sequences(TEXTS[:1], tokenizer_dir, 64)
    ids = tokenizer.encode(TEXTS[:1])[0]
    leads = [int(sequence["input_ids"][0][0]) for sequence in held_out.sequences]
    assert leads[0] == tokenizer.bos_or_eos_id and len(leads) > 2  # the last window alone is given more
    assert leads[1] == ids[62]  # 63 were predicted before it, the last of which leads here


def _uniform(sequences: Sequence[Batch]) -> list[Floats]:
    return [np.full(int((one["labels"] >= 0).sum()), math.log(1024)) for one in sequences]


def test_score_is_the_formula_and_does_not_depend_on_ranks(tokenizer_dir: Path) -> None:
    held_out = held_out_sequences(TEXTS, tokenizer_dir, 32)
    alone = score(held_out, _uniform, rank=0, world_size=1, sum_over_ranks=list, base_vocab=300)
    assert alone.bits_per_byte == pytest.approx(10 * held_out.n_tokens / held_out.n_bytes)
    shares: list[list[float]] = []
    for rank in range(3):
        score(held_out, _uniform, rank=rank, world_size=3, base_vocab=300,
              sum_over_ranks=lambda values: shares.append(list(values)) or values)  # fmt: skip
    summed = np.sum(shares, axis=0).tolist()
    for rank in range(3):
        found = score(
            held_out, _uniform, rank=rank, world_size=3, sum_over_ranks=lambda _: summed, base_vocab=300
        )
        assert found.nats_N == pytest.approx(alone.nats_N)
        assert found.bits_per_byte == pytest.approx(
            alone.bits_per_byte
        ) and found.interval.low == pytest.approx(alone.interval.low)
        assert (found.new_tokens, found.new_nats) == (alone.new_tokens, pytest.approx(alone.new_nats))
    ids = [i for text in FolderTokenizer(tokenizer_dir).encode(TEXTS) for i in text]
    assert alone.new_tokens == sum(i >= 300 for i in ids) > 0


def test_the_adapted_model_gives_the_losses_of_plain_transformers(tokenizer_dir: Path) -> None:
    plain = small_model().causal_lm
    model = build_adapted(tokenizer_dir, make_recipe(train={"precision": "fp32"}), [], 1024).eval()
    held_out = held_out_sequences(TEXTS, tokenizer_dir, 512)
    found = score(
        held_out,
        lambda batches: [
            model.target_losses(**model_inputs(one, model.output_table.base_VD.device)).double().numpy()
            for one in batches
        ],
        rank=0,
        world_size=1,
        sum_over_ranks=list,
    )
    tokenizer = FolderTokenizer(tokenizer_dir)
    with generation_mode(plain):
        expected = [
            -plain_log_likelihood(plain, (tokenizer.bos_or_eos_id,), tuple(ids))
            for ids in tokenizer.encode(TEXTS)
        ]
    assert found.nats_N == pytest.approx(expected, rel=1e-5)

"""Changing one document of a sequence changes no logit of another: real attention code, fp32 and bf16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from persianmind.data.read.sequence import TokenSequence, build_sequence

LENGTHS = [13, 7, 22, 5]  # and a padding of 17


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).eval()


def _sequence(tokens: np.ndarray) -> TokenSequence:
    return build_sequence(tokens, np.array(LENGTHS, dtype=np.int32), None)


def _logits(
    model: LlamaForCausalLM, sequence: TokenSequence, dtype: torch.dtype, **extra: torch.Tensor
) -> torch.Tensor:
    ids, positions = (torch.from_numpy(a)[None] for a in (sequence.input_ids, sequence.position_ids))
    with torch.no_grad():
        return model.to(dtype)(input_ids=ids, position_ids=positions, use_cache=False, **extra).logits[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changed", range(len(LENGTHS) + 1))
def test_logits_of_a_document_do_not_change_with_its_neighbours(
    model: LlamaForCausalLM, dtype: torch.dtype, changed: int
) -> None:
    tokens = np.random.default_rng(1).integers(0, 300, 64)
    borders = np.cumsum([0, *LENGTHS, 17])
    other = tokens.copy()
    part = slice(borders[changed], borders[changed + 1])
    other[part] = (other[part] + 1) % 300
    before, after = _logits(model, _sequence(tokens), dtype), _logits(model, _sequence(other), dtype)
    keep = torch.ones(64, dtype=torch.bool)
    keep[part] = False
    assert torch.equal(before[keep], after[keep])
    assert not torch.equal(before[part], after[part])


def test_document_in_a_sequence_has_the_logits_it_has_alone(model: LlamaForCausalLM) -> None:
    tokens = np.random.default_rng(2).integers(0, 300, 64)
    packed = _logits(model, _sequence(tokens), torch.float32)
    start = 0
    for length in LENGTHS:
        part = tokens[start : start + length]
        alone = _logits(model, build_sequence(part, np.array([length], dtype=np.int32), None), torch.float32)
        torch.testing.assert_close(packed[start : start + length], alone, rtol=1e-4, atol=1e-5)
        start += length


def test_positions_that_do_not_restart_leak(model: LlamaForCausalLM) -> None:
    """The control: with positions that run on, neighbours do show."""
    tokens = np.random.default_rng(3).integers(0, 300, 64)
    other = tokens.copy()
    other[: LENGTHS[0]] = (other[: LENGTHS[0]] + 1) % 300

    def running_on(ids: np.ndarray) -> torch.Tensor:
        sequence = _sequence(ids)
        return _logits(
            model, TokenSequence(sequence.input_ids, np.arange(64), sequence.labels), torch.float32
        )

    assert not torch.equal(running_on(tokens)[20:60], running_on(other)[20:60])

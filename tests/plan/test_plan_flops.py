"""The arithmetic behind MFU."""

from __future__ import annotations

import pytest
import torch

from persianmind.estimate.flops import flops_per_token, peak_flops
from persianmind.model.adapted import adapt
from persianmind.recipe.loading import load_recipe


def test_the_longest_name_counts_and_others_are_unknown() -> None:
    assert peak_flops("NVIDIA GeForce RTX 3090", "bf16") == 71e12
    assert peak_flops("NVIDIA GeForce RTX 3090 Ti", "bf16") == 80e12
    assert peak_flops("NVIDIA GeForce RTX 3090", "fp32") is None
    assert peak_flops("cpu", "bf16") is None


@pytest.mark.parametrize("tied", [False, True])
def test_flops_of_a_small_model_counted_by_hand(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        bare = LlamaForCausalLM(config)
    model = adapt(bare, load_recipe("tiny"), [[1, 2]] * 10, 100)
    layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16  # projections, MLP, norms
    lora = 4 * (4 * (16 + 16) + 0) + 3 * 4 * (16 + 32)  # rank 4
    trained = 2 * lora + 10 * 16
    weights = 2 * layer + 16 + 100 * 16 + trained
    attention = 6 * 2 * 16 * 64
    assert flops_per_token(model, 64) == 4 * weights + 2 * trained + attention

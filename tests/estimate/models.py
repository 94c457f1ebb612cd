"""A model small enough for any test."""

from __future__ import annotations

import torch

from persianmind.model.adapted import AdaptedModel, adapt
from persianmind.recipe.loading import load_recipe

VOCAB, ADDED, HIDDEN, MLP, LAYERS, HEADS = 100, 10, 64, 160, 2, 4


def tiny_model(
    tied: bool,
    device: str,
    train_embeddings: str = "new",
    *,
    layers: int = LAYERS,
    adapted: str = "null",
    added: int = ADDED,
) -> AdaptedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        tie_word_embeddings=tied,
    )
    with torch.device(device):
        bare = LlamaForCausalLM(config)
    recipe = load_recipe(
        "tiny",
        [
            "train.gradient_checkpointing=off",
            f"vocab.train_embeddings={train_embeddings}",
            f"adapter.layers={adapted}",
        ],
    )
    model = adapt(bare, recipe, [[1, 2]] * added, VOCAB)
    bare.set_attn_implementation("eager")  # plain matmuls: torch's counter sees every one
    return model

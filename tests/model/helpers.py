"""Tiny bases of the architectures the project supports, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.model.adapted import AdaptedModel
from persianmind.model.documents import Documents
from persianmind.recipe import Recipe, Source, Stage

BASE_VOCAB = 96
PIECES = [[3, 4], [5], [6, 7, 8], [9, 10]]
ARCHITECTURES = ("llama", "mistral", "qwen2")


def make_base(
    folder: Path, architecture: str, *, tied: bool, padding: int = 0, layers: int = 2, **config_: Any
) -> Path:
    """A random model of two layers saved as an ordinary HF folder."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=BASE_VOCAB + padding,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        **config_,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_recipe(**sections: Any) -> Recipe:
    """A valid recipe with the given sections replaced."""
    values: dict[str, Any] = {
        "name": "test",
        "base": "unused",
        "sources": {"a": Source(uri="a.txt")},
        "stages": [Stage(name="s", sources={"a": 1.0}, tokens=1)],
        "train": {"precision": "fp32"},
    }
    return Recipe.model_validate({**values, **sections})


def packed_batch(length: int = 48, *, vocab: int, cut: int = 20, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two documents in one sequence; labels are shifted and end at each document's end."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (1, length), generator=generator)
    positions = torch.cat([torch.arange(cut), torch.arange(length - cut)]).unsqueeze(0)
    labels = ids.roll(-1, dims=1)
    labels[0, [cut - 1, length - 1]] = -100
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


@torch.no_grad()
def perturbed(model: AdaptedModel) -> AdaptedModel:
    """Adapters and new embeddings away from their first values, as after training."""
    torch.manual_seed(5)
    for value in model.trained().values():
        value += torch.randn_like(value.float()).to(value.dtype) * 0.05
    return model


@torch.no_grad()
def logits_of(
    model: AdaptedModel,
    ids: torch.Tensor,
    positions: torch.Tensor | None = None,
    documents: Documents | None = None,
) -> torch.Tensor:
    """[B, L, V + A]; each sequence one document where no positions say otherwise."""
    if positions is None:
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
    logits: torch.Tensor = model.causal_lm.get_output_embeddings()(  # type: ignore[operator]
        model.hidden_states(ids, positions, documents)
    )
    return logits

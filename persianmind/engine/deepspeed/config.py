"""DeepSpeed's own JSON, its "auto" values filled from the recipe; contradictions name both places.

The file stays in DeepSpeed's native format, so people's knowledge of it holds. "auto" is resolved here:
DeepSpeed itself does not know the word.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persianmind.common.errors import ConfigConflictError, RecipeError
from persianmind.engine.schedule import gradient_accumulation_steps
from persianmind.recipe import Recipe


def read_deepspeed_config(path: Path) -> dict[str, Any]:
    """The JSON as it stands.

    Raises:
        RecipeError: the file is missing, is not JSON, or asks for another ZeRO stage than 2.
    """
    if not path.is_file():
        raise RecipeError(f"--deepspeed {path}: no such file; ds_configs/zero2.json is the usual one")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path}: a DeepSpeed config is a JSON object, this file is not")
    stage = config.get("zero_optimization", {}).get("stage")
    if stage != 2:
        raise RecipeError(
            f"{path}: zero_optimization.stage is {stage!r}; this trainer is built on ZeRO stage 2"
        )
    return config


def resolve_deepspeed_config(path: Path, recipe: Recipe, world_size: int) -> dict[str, Any]:
    """Fills every "auto" and refuses any explicit value that says something else than the recipe.

    Raises:
        ConfigConflictError: a value contradicts the recipe; both places are named.
        RecipeError: an "auto" at a place that nothing in the recipe decides.
    """
    config = read_deepspeed_config(path)
    for dotted, (value, recipe_place) in _decided(recipe, world_size).items():
        *parents, key = dotted.split(".")
        node = config
        for parent in parents:
            node = node.get(parent, {})
        if key not in node:
            continue
        if node[key] == "auto":
            node[key] = value
        elif node[key] != value:
            raise ConfigConflictError(
                f"{path} says {dotted}={json.dumps(node[key])} but the recipe's {recipe_place} makes it "
                f'{json.dumps(value)}; change one of them, or write "auto" in the JSON'
            )
    if left := _autos(config):
        raise RecipeError(f'{path}: nothing in the recipe decides {left[0]}="auto"; write a value there')
    # DeepSpeed only ever sees whole batches and wants its three numbers to agree; ours need not divide.
    size = config["train_micro_batch_size_per_gpu"] = recipe.train.micro_batch_size
    accumulation = gradient_accumulation_steps(recipe.train.global_batch_size, size, world_size)
    config["gradient_accumulation_steps"] = accumulation
    config["train_batch_size"] = size * accumulation * world_size
    # Its throughput timer makes the host wait for the GPU at every forward pass.
    config.setdefault("timers", {}).setdefault("throughput", {}).setdefault("enabled", False)
    return config


def _decided(recipe: Recipe, world_size: int) -> dict[str, tuple[Any, str]]:
    """What the recipe decides: dotted place in the JSON -> (value, place in the recipe)."""
    train = recipe.train
    accumulation = gradient_accumulation_steps(train.global_batch_size, train.micro_batch_size, world_size)
    ranks = f"train.global_batch_size={train.global_batch_size} over {world_size} ranks"
    return {
        "train_batch_size": (train.global_batch_size, "train.global_batch_size"),
        "train_micro_batch_size_per_gpu": (train.micro_batch_size, "train.micro_batch_size"),
        "gradient_accumulation_steps": (accumulation, ranks),
        "gradient_clipping": (train.max_grad_norm, "train.max_grad_norm"),
        "bf16.enabled": (train.precision == "bf16", "train.precision"),
        "optimizer.params.lr": (train.learning_rate, "train.learning_rate"),
        "optimizer.params.betas": (list(train.adam_betas), "train.adam_betas"),
        "optimizer.params.eps": (train.adam_epsilon, "train.adam_epsilon"),
        "optimizer.params.weight_decay": (train.weight_decay, "train.weight_decay"),
    }


def _autos(node: Any, place: str = "") -> list[str]:
    if isinstance(node, dict):
        return [found for key, value in node.items() for found in _autos(value, f"{place}.{key}".lstrip("."))]
    return [place] if node == "auto" else []

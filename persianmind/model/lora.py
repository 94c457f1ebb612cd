"""LoRA adapters through peft, injected into a loaded base."""

from __future__ import annotations

from typing import Any

from torch import nn

from persianmind.common.errors import BaseModelError
from persianmind.model.families import family_of
from persianmind.recipe import Adapter

LAYERS = "layers"  # what the list of decoder layers is called in every family, for peft


def add_adapters(causal_lm: nn.Module, adapter: Adapter) -> None:
    """LoRA on every projection of the decoder layers, or on the named ones, in all layers or in those of
    `adapter.layers`; adapters are made in fp32 by peft and cast to the model's dtype: the fp32 masters are
    ZeRO's.

    Raises:
        BaseModelError: `adapter.targets` names no module of these layers.
        RecipeError: the base has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = None
    if adapter.layers is not None:
        layers = list(adapter.layer_indices(layer_count(causal_lm)))
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter_targets(causal_lm) if adapter.targets == "all-linear" else adapter.targets,
        layers_to_transform=layers,
        layers_pattern=None if layers is None else LAYERS,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        bias="none",
    )
    dtype = next(causal_lm.parameters()).dtype
    try:
        inject_adapter_in_model(config, causal_lm)
    except ValueError as error:
        raise BaseModelError(f"adapter.targets: {' '.join(str(error).split())[:200]}") from None
    for name, parameter in causal_lm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)


def layer_count(causal_lm: nn.Module) -> int:
    """Decoder layers of a loaded model."""
    decoder: Any = causal_lm.get_decoder()  # type: ignore[operator]
    return len(decoder.layers)


def adapter_targets(causal_lm: nn.Module) -> list[str]:
    """The last name of every linear projection inside the decoder layers (q_proj, ..., down_proj); of a
    mixture of experts those of its attention alone, whose names are its own."""
    attention_only = family_of(causal_lm.config).experts
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in causal_lm.named_modules()
        if isinstance(module, nn.Linear)
        and ".layers." in f".{name}"
        and (not attention_only or ".self_attn." in name)
    }
    return sorted(names)

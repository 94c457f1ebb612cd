"""Parameter groups with learning rates of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel

# LoRA's A and B factors (LoRA+ gives B a higher rate), and the new embeddings.
GROUPS = ("adapters_a", "adapters_b", "embeddings")


def group_of(name: str) -> str:
    """The group of a trained parameter, by its name."""
    if "lora_" not in name:
        return "embeddings"
    return "adapters_b" if "lora_B" in name else "adapters_a"


def parameter_groups(model: AdaptedModel, weight_decay: float) -> list[dict[str, Any]]:
    """The groups as an optimizer takes them; empty ones are left out (torch 2.13 fails on them)."""
    groups: dict[str, list[Any]] = {name: [] for name in GROUPS}
    for name, parameter in model.trained().items():
        groups[group_of(name)].append(parameter)
    return [
        {"params": parameters, "name": name, "weight_decay": weight_decay}
        for name, parameters in groups.items()
        if parameters
    ]

"""What a run has trained, apart from the model it was trained in: tensors by name on the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from persianmind.common.checksum import hash_text
from persianmind.recipe import Adapter

if TYPE_CHECKING:
    from torch import Tensor

    from persianmind.model.adapted import AdaptedModel

_PREFIX = "causal_lm."  # of every parameter of an AdaptedModel


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """One adapted projection: delta [out, in] = scale * B_OR @ A_RI; magnitude_O: DoRA's, else None."""

    A_RI: Tensor
    B_OR: Tensor
    magnitude_O: Tensor | None
    scale: float


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """The trained parameters of an `AdaptedModel` by its own names, and the settings that give them a
    meaning.

    base_vocab: the first new id.
    """

    tensors: Mapping[str, Tensor]
    adapter: Adapter
    base_vocab: int

    @classmethod
    def of(cls, model: AdaptedModel, adapter: Adapter) -> TrainedWeights:
        """Copies of what a model trains, on the host."""
        tensors = {name: value.detach().cpu() for name, value in model.trained().items()}
        return cls(tensors, adapter, model.output_table.base_vocab)

    def fingerprint(self) -> str:
        """A hash over names, types and bytes of all tensors."""
        import torch

        hashes = []
        for name, tensor in sorted(self.tensors.items()):
            content = tensor.contiguous().flatten().view(torch.uint8).numpy().data
            hashes.append(f"{name} {tensor.dtype} {list(tensor.shape)} {xxhash.xxh3_128_hexdigest(content)}")
        return hash_text(*hashes)

    def lora(self, weight: str) -> LoraFactors | None:
        """The adapter of a projection's weight ("model.layers.0.mlp.up_proj.weight"), None where it has
        none."""
        module = _PREFIX + weight.removesuffix(".weight")
        factor_A = self.tensors.get(f"{module}.lora_A.default.weight")
        if factor_A is None or not weight.endswith(".weight"):
            return None
        rank = factor_A.shape[0]
        return LoraFactors(
            factor_A,
            self.tensors[f"{module}.lora_B.default.weight"],
            self.tensors.get(f"{module}.lora_magnitude_vector.default.weight"),
            self.adapter.alpha / (rank**0.5 if self.adapter.rslora else rank),
        )

    def adapted_weights(self) -> set[str]:
        """The weights that have an adapter, named as in the transformers model."""
        suffix = ".lora_A.default.weight"
        return {
            f"{name.removeprefix(_PREFIX).removesuffix(suffix)}.weight"
            for name in self.tensors
            if name.endswith(suffix)
        }

    def adapted_layers(self) -> set[int]:
        """The decoder layers that have an adapter."""
        found = (re.search(r"\.layers\.(\d+)\.", f".{name}") for name in self.adapted_weights())
        return {int(match[1]) for match in found if match is not None}

    def table(self, module: str) -> tuple[Tensor | None, Tensor | None]:
        """(base embeddings [V, D] where they were trained, new embeddings [A, D] where there are any) of the
        table in a module ("model.embed_tokens")."""
        prefix = f"{_PREFIX}{module}.table."
        return self.tensors.get(f"{prefix}base_VD"), self.tensors.get(f"{prefix}new_AD")

"""Which tensors a GGUF holds, in which form, and their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from persianmind.common.errors import BaseModelError
from persianmind.model.export.gguf.architecture import architecture_of, head_dim, tensor_map
from persianmind.model.export.gguf.rope import check_rope, rope_factors
from persianmind.model.export.source import TensorSource

if TYPE_CHECKING:
    from torch import Tensor

GgufDtype = Literal["f32", "f16", "bf16", "q8_0"]
_BLOCK_VALUES = 1 << 22  # converted at once: 16 MB in fp32


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of the file.

    source: its name in the folder, None for the RoPE factors. heads: number of heads whose rows change
    places, 0 for none. type: "F32", "F16", "BF16" or "Q8_0".
    """

    source: str | None
    shape: tuple[int, ...]
    type: str
    heads: int = 0

    @property
    def bytes(self) -> int:
        """Size in the file, without padding."""
        from gguf.quants import quant_shape_to_byte_shape

        return int(np.prod(quant_shape_to_byte_shape(self.shape, quantisation(self.type)), dtype=np.int64))


def plan_tensors(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], dtype: GgufDtype
) -> dict[str, GgufTensor]:
    """Name in the file -> what stands there, in the order of writing.

    Raises:
        BaseModelError: see `architecture_of`, `check_rope` and `tensor_map`; or rows that q8_0 cannot pack.
    """
    architecture = architecture_of(config)
    check_rope(config, architecture)
    heads = int(config["num_attention_heads"])
    rotated = {"q_proj": heads, "k_proj": int(config.get("num_key_value_heads") or heads)}
    plan: dict[str, GgufTensor] = {}
    if rope_factors(config) is not None:
        plan["rope_freqs.weight"] = GgufTensor(None, (head_dim(config) // 2,), "F32")
    for name, to in tensor_map(architecture, config, shapes).items():
        kind = dtype.upper() if len(shapes[name]) > 1 else "F32"
        if kind == "Q8_0" and shapes[name][-1] % 32:
            raise BaseModelError(
                f"q8_0 packs 32 values, {name} has rows of {shapes[name][-1]}; use --dtype f16"
            )
        changes = rotated.get(name.split(".")[-2], 0) if architecture.rotates_pairs else 0
        plan[to] = GgufTensor(name, tuple(shapes[name]), kind, changes)
    table = shapes["model.embed_tokens.weight"][0]
    if table != config["vocab_size"]:
        raise BaseModelError(f"vocab_size {config['vocab_size']} and {table} embeddings differ; export again")
    return plan


def tensor_data(tensor: GgufTensor, config: Mapping[str, Any], source: TensorSource) -> npt.NDArray[Any]:
    """The bytes of one tensor as they stand in the file, a flat array.

    Raises:
        BaseModelError: values that are not finite, or not in f16.
    """
    if tensor.source is None:
        factors = rope_factors(config)
        assert factors is not None
        return factors
    weight = source.load(tensor.source)
    if tensor.heads:
        weight = rotate_pairs(weight, tensor.heads)
    return _packed(tensor, weight)


def rotate_pairs(weight: Tensor, heads: int) -> Tensor:
    """A query or key weight [heads x d, ...], or its bias: rows i and i + d/2 of a head become neighbours."""
    d = weight.shape[0] // heads
    return weight.reshape(heads, 2, d // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _packed(tensor: GgufTensor, weight: Tensor) -> npt.NDArray[np.uint8]:
    """The weight in the file's type, a block of rows at a time: in fp32 there is never more than a block."""
    from gguf.quants import quantize

    kind = quantisation(tensor.type)
    rows = weight.reshape(-1, weight.shape[-1])
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    packed, done = np.empty(tensor.bytes, dtype=np.uint8), 0
    for start in range(0, rows.shape[0], step):
        block = rows[start : start + step].float().numpy()
        with np.errstate(over="ignore"):
            part = np.ascontiguousarray(quantize(block, kind))
        if not np.isfinite(block).all() or (tensor.type == "F16" and not np.isfinite(part).all()):
            raise BaseModelError(
                f"{tensor.source} holds values that are not finite in {tensor.type.lower()}; use --dtype bf16"
            )
        packed[done : done + part.nbytes] = part.reshape(-1).view(np.uint8)
        done += part.nbytes
    return packed


def quantisation(kind: str) -> Any:
    """gguf's constant for a type."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind]

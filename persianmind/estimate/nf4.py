"""4-bit weights without values, in the form that bitsandbytes gives them.

Two weights to a byte; one 8-bit absmax for a block of 64 weights; one fp32 absmax for 256 of those, their
mean, and the two tables of values (double quantisation; Dettmers et al., arXiv 2305.14314, section 3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 64
NESTED_BLOCK = 256
VALUES, NESTED_VALUES = 16, 256


def quantise_shapes(causal_lm: Any, dtype: torch.dtype) -> None:
    """Every linear projection as `load_base` makes it; the output projection stays as it is.

    Args:
        causal_lm: a transformers model on the meta device.
        dtype: that it multiplies in.
    """
    import bitsandbytes

    head = causal_lm.get_output_embeddings()
    for name, linear in list(causal_lm.named_modules()):
        if not isinstance(linear, nn.Linear) or linear is head:
            continue
        packed = bitsandbytes.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
            device=linear.weight.device,
        )
        packed.weight = packed_weight(tuple(linear.weight.shape), dtype, linear.weight.device)
        packed.bias = linear.bias
        parent, _, last = name.rpartition(".")
        setattr(causal_lm.get_submodule(parent), last, packed)
    causal_lm.is_loaded_in_4bit = True  # what peft asks before it adapts 4-bit layers


def packed_weight(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """An empty `Params4bit` of a weight of this shape."""
    from bitsandbytes.nn import Params4bit

    state = block_constants(shape, dtype, device)
    return Params4bit(
        packed_bytes(shape, device),
        requires_grad=False,
        quant_state=state,
        quant_type="nf4",
        bnb_quantized=True,
    )


def packed_bytes(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The weights alone, uint8."""
    return torch.empty(-(-math.prod(shape) // 2), 1, dtype=torch.uint8, device=device)


def block_constants(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """bitsandbytes' `QuantState` of a weight of this shape, doubly quantised."""
    from bitsandbytes.functional import QuantState

    def empty(size: int, kind: torch.dtype) -> Tensor:
        return torch.empty(size, dtype=kind, device=device)

    blocks = -(-math.prod(shape) // BLOCK)
    nested = QuantState(
        absmax=empty(-(-blocks // NESTED_BLOCK), torch.float32),
        code=empty(NESTED_VALUES, torch.float32),
        blocksize=NESTED_BLOCK,
        dtype=torch.float32,
    )
    return QuantState(
        absmax=empty(blocks, torch.uint8),
        shape=torch.Size(shape),
        code=empty(VALUES, torch.float32),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=torch.empty((), dtype=torch.float32, device=device),
        state2=nested,
    )

"""Block Hadamard rotations: what an outlier channel holds is spread over its block before it is quantised.

With H of +1 and -1 and K columns, x W^T = (x H) (W H / K)^T: rotated weights and inputs give the same
matmul, and outliers no longer set the scales of their rows (QuaRot, arXiv 2404.00456; in
training arXiv 2512.03673). H is symmetric, exact in every dtype, and its own inverse but for K.

Shape legend: N rows, I input features, K of a block.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

LARGEST_BLOCK = 64

_LIBRARY = torch.library.Library("persianmind", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("rotate_blocks(Tensor x, Tensor rotation) -> Tensor")  # type: ignore[no-untyped-call]


def rotation_block(features: int) -> int:
    """K: the largest power of 2 up to 64 that divides I."""
    return math.gcd(features, LARGEST_BLOCK)


def hadamard(block: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """H [K, K] of a power of 2 (Sylvester)."""
    one = torch.ones(1, 1, dtype=dtype, device=device)
    while len(one) < block:
        one = torch.cat([torch.cat([one, one], 1), torch.cat([one, -one], 1)])
    return one


@torch.library.impl(_LIBRARY, "rotate_blocks", "CompositeExplicitAutograd")
def _rotate_blocks(x_NI: Tensor, rotation_KK: Tensor) -> Tensor:
    """x times H in each block of columns, [N, I]. An operation of its own: recomputation, which saves what
    matmuls give, is to make it anew."""
    return torch.mm(x_NI.reshape(-1, len(rotation_KK)), rotation_KK).view(x_NI.shape)


rotate_blocks = torch.ops.persianmind.rotate_blocks.default


@torch.library.register_fake("persianmind::rotate_blocks", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(x_NI: Tensor, rotation: Any) -> Any:
    return x_NI.new_empty(x_NI.shape)


@register_flop_formula(torch.ops.persianmind.rotate_blocks)
def _flops(x_NI: Any, rotation_KK: Any, *_: Any, **__: Any) -> int:
    return int(2 * x_NI[0] * x_NI[1] * rotation_KK[0])

"""Exact matmuls of int8 matrices on any device, and with the scales of their rows.

Shape legend: N tokens, I input features, O output features, K summed over, C columns.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from persianmind.common.device.instructions import INT8_INSTRUCTIONS
from persianmind.model.int8_rounding import quantise_rows

# An fp32 sum of products of two int8 numbers is exact while it stays below 2^24, in any order.
EXACT_TERMS = 1024
# cuBLAS refuses int8 matmuls of 16 rows or fewer, and of lengths that are no multiple of 8.
FEWEST_ROWS = 32
MULTIPLE = 8
TRITON_CAPABILITY = (8, 0)

_LIBRARY = torch.library.Library("persianmind", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "int8_projection(Tensor x8, Tensor x_scale, Tensor weight, Tensor scale, Tensor? bias, ScalarType dtype)"
    " -> Tensor"
)
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "int8_input_gradient(Tensor dy8, Tensor dy_scale, Tensor weight, ScalarType dtype) -> Tensor"
)


@functools.cache
def has_int8_matmuls(machine: str = platform.machine()) -> bool:
    """Whether this CPU multiplies int8 by itself; without, torch takes a second for each GFLOP."""
    if machine.lower() not in ("x86_64", "amd64"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in INT8_INSTRUCTIONS)


@functools.cache
def triton_runs_on(device: torch.device) -> bool:
    """Whether the kernels of `int8_triton` do; torch's own operations do the same elsewhere."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= TRITON_CAPABILITY


def quantise(
    x_NC: Tensor, words_2N: Tensor | None = None, factor_C: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`quantise_rows` of x, times `factor_C` where there is one: left to a compiler that is at work, which
    joins it with what comes before, else one kernel where Triton runs."""
    if not torch.compiler.is_compiling() and triton_runs_on(x_NC.device):
        from persianmind.model.int8_triton import quantise_rows_fused

        return quantise_rows_fused(x_NC, words_2N, factor_C)
    return quantise_rows(x_NC if factor_C is None else x_NC.to(torch.float32) * factor_C, words_2N)


def int8_matmul(a_NK: Tensor, b_KC: Tensor) -> Tensor:
    """The exact matmul of two int8 matrices, int32 [N, C]; the same bits on every device."""
    if a_NK.is_cuda:
        rows = len(a_NK)
        if rows < FEWEST_ROWS:
            a_NK = nn.functional.pad(a_NK, (0, 0, 0, FEWEST_ROWS - rows))
        return torch._int_mm(a_NK, b_KC)[:rows]
    return torch._int_mm(a_NK, b_KC) if has_int8_matmuls() else _matmul_in_parts(a_NK, b_KC)


def _matmul_in_parts(a_NK: Tensor, b_KC: Tensor) -> Tensor:
    """By fp32 matmuls of parts so short that these are exact."""
    total_NC: Tensor | None = None
    for start in range(0, a_NK.shape[1], EXACT_TERMS):
        part = slice(start, start + EXACT_TERMS)
        part_NC = torch.mm(a_NK[:, part].float(), b_KC[part].float()).to(torch.int32)
        total_NC = part_NC if total_NC is None else total_NC.add_(part_NC)
    assert total_NC is not None
    return total_NC


def matmul_bytes(rows: int, terms: int, columns: int, device: torch.device) -> int:
    """The most that an int32 matmul and its fp32 copy hold, with what is made on the way."""
    whole = 4 * rows * columns
    if device.type != "cpu" or has_int8_matmuls():
        return 2 * whole
    copies = 4 * min(terms, EXACT_TERMS) * (rows + columns)
    return (whole if terms > EXACT_TERMS else 0) + max(whole + copies, 2 * whole)


@torch.library.impl(_LIBRARY, "int8_projection", "CompositeExplicitAutograd")
def _int8_projection(
    x8_NI: Tensor,
    x_scale_N1: Tensor,
    weight_OI: Tensor,
    scale_O: Tensor,
    bias_O: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """x W^T + bias, [N, O] in `dtype`."""
    if triton_runs_on(x8_NI.device):
        from persianmind.model.int8_triton import scaled_matmul

        return scaled_matmul(x8_NI, weight_OI.t(), x_scale_N1, dtype, column_scale_C=scale_O, bias_C=bias_O)
    y_NO = int8_matmul(x8_NI, weight_OI.t()).to(torch.float32).mul_(x_scale_N1).mul_(scale_O)
    return (y_NO if bias_O is None else y_NO.add_(bias_O)).to(dtype)


@torch.library.impl(_LIBRARY, "int8_input_gradient", "CompositeExplicitAutograd")
def _int8_input_gradient(
    dy8_NO: Tensor, dy_scale_N1: Tensor, weight_OI: Tensor, dtype: torch.dtype
) -> Tensor:
    """dY W, [N, I] in `dtype`, of a dY that has the output scale in it."""
    if triton_runs_on(dy8_NO.device):
        from persianmind.model.int8_triton import scaled_matmul

        return scaled_matmul(dy8_NO, weight_OI, dy_scale_N1, dtype)
    return int8_matmul(dy8_NO, weight_OI).to(torch.float32).mul_(dy_scale_N1).to(dtype)


int8_projection = torch.ops.persianmind.int8_projection.default
int8_input_gradient = torch.ops.persianmind.int8_input_gradient.default


@torch.library.register_fake("persianmind::int8_projection", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(x8_NI: Tensor, x_scale: Any, weight_OI: Tensor, scale: Any, bias: Any, dtype: torch.dtype) -> Any:
    return x8_NI.new_empty(len(x8_NI), len(weight_OI), dtype=dtype)


@torch.library.register_fake(  # type: ignore[untyped-decorator]
    "persianmind::int8_input_gradient", lib=_LIBRARY
)
def _(dy8_NO: Tensor, dy_scale: Any, weight_OI: Tensor, dtype: torch.dtype) -> Any:
    return dy8_NO.new_empty(len(dy8_NO), weight_OI.shape[1], dtype=dtype)


@register_flop_formula([torch.ops.persianmind.int8_projection, torch.ops.persianmind.int8_input_gradient])
def _flops(rows: Any, row_scale: Any, weight_OI: Any, *_: Any, **__: Any) -> int:
    return int(2 * rows[0] * weight_OI[0] * weight_OI[1])

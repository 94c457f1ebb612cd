"""The int8 base's two kernels on a GPU, in Triton: rows to int8, and the matmul with what follows it.

The matmul's int32 sums never reach memory: scales, bias and what LoRA adds are applied where they are. Same
numbers as `int8` and `int8_rounding` in plain torch, which are their reference: the integers to the bit.
Imported only where triton is.

Shape legend: N rows, C columns, K summed over, R rank of LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from persianmind.model.int8_rounding import LEVELS, SHRUNK_LEVELS, SMALLEST

# A tile of the output, and how many of them share their columns of the weight while these are in the cache.
ROWS, COLUMNS, DEPTH, TOGETHER = 128, 128, 64, 8
MATMUL_WARPS, MATMUL_STAGES = 8, 4
FEWEST_RANKS, MOST_RANKS = 16, 32  # of a turn of the loop: a matrix instruction takes 16, some of them zeros
# A sum with 1.5 x 2^23 has no digits behind the point: nearest, ties to even.
_TO_WHOLE = tl.constexpr(12582912.0)
_LEVELS, _SHRUNK, _SMALLEST = tl.constexpr(LEVELS), tl.constexpr(SHRUNK_LEVELS), tl.constexpr(SMALLEST)


@triton.jit  # type: ignore[untyped-decorator]
def quantise_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    factor_ptr,
    a_ptr,
    b_ptr,
    out_ptr,
    scale_ptr,
    columns,
    row_stride,
    HAS_FACTOR: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program for each row: times the factor of each column, by the largest number to int8."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    inside = places < columns
    x = tl.load(x_ptr + row * row_stride + places, mask=inside, other=0.0).to(tl.float32)
    if HAS_FACTOR:
        x = x * tl.load(factor_ptr + places, mask=inside, other=0.0)
    largest = tl.maximum(tl.max(tl.abs(x), axis=0), _SMALLEST)
    largest = tl.where(tl.max((x != x).to(tl.int32), axis=0) > 0, float("nan"), largest)
    tl.store(scale_ptr + row, largest * (1 / _LEVELS))
    if STOCHASTIC:
        steps = x * tl.div_rn(_SHRUNK, largest)
        drawn = tl.load(b_ptr + row) + tl.load(a_ptr + row) * places  # wraps around
        steps = steps + drawn.to(tl.float32) * 2.0**-32
    else:
        steps = x * tl.div_rn(_LEVELS, largest)
    whole = (steps + _TO_WHOLE) - _TO_WHOLE
    tl.store(out_ptr + row * columns + places, whole.to(tl.int32).to(tl.int8), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def matmul_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    w_ptr,
    row_scale_ptr,
    column_scale_ptr,
    bias_ptr,
    h_ptr,
    f_ptr,
    out_ptr,
    rows,
    columns,
    depth,
    w_depth_stride,
    w_column_stride,
    rank,
    f_rank_stride,
    f_column_stride,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RANKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """A program for each tile of `out`: x w in int32, times both scales, plus bias, plus h f."""
    tiles_down, tiles_across = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    tile, in_group = tl.program_id(0), TOGETHER * tiles_across
    first = (tile // in_group) * TOGETHER
    height = min(tiles_down - first, TOGETHER)
    row = (first + (tile % in_group) % height) * ROWS + tl.arange(0, ROWS)
    column = ((tile % in_group) // height) * COLUMNS + tl.arange(0, COLUMNS)
    row_in, column_in = row < rows, column < columns
    row, column = row.to(tl.int64), column.to(tl.int64)
    place = tl.arange(0, DEPTH)
    x_tile = x_ptr + row[:, None] * depth + place[None, :]
    w_tile = w_ptr + place[:, None] * w_depth_stride + column[None, :] * w_column_stride
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    for start in range(0, depth, DEPTH):
        left = place < depth - start
        x = tl.load(x_tile, mask=row_in[:, None] & left[None, :], other=0)
        w = tl.load(w_tile, mask=left[:, None] & column_in[None, :], other=0)
        sums = tl.dot(x, w, sums, out_dtype=tl.int32)
        x_tile += DEPTH
        w_tile += DEPTH * w_depth_stride
    out = sums.to(tl.float32) * tl.load(row_scale_ptr + row, mask=row_in, other=0.0)[:, None]
    if HAS_SCALE:
        out = out * tl.load(column_scale_ptr + column, mask=column_in, other=0.0)[None, :]
    if HAS_BIAS:
        out = out + tl.load(bias_ptr + column, mask=column_in, other=0.0).to(tl.float32)[None, :]
    if RANKS > 0:
        ranks = tl.arange(0, RANKS)
        h_tile = h_ptr + row[:, None] * rank + ranks[None, :]
        f_tile = f_ptr + ranks[:, None] * f_rank_stride + column[None, :] * f_column_stride
        for start in range(0, rank, RANKS):
            left = ranks < rank - start
            h = tl.load(h_tile, mask=row_in[:, None] & left[None, :], other=0.0)
            f = tl.load(f_tile, mask=left[:, None] & column_in[None, :], other=0.0)
            out = tl.dot(h, f, out, input_precision="ieee")
            h_tile += RANKS
            f_tile += RANKS * f_rank_stride
    inside = row_in[:, None] & column_in[None, :]
    tl.store(
        out_ptr + row[:, None] * columns + column[None, :], out.to(out_ptr.dtype.element_ty), mask=inside
    )


@dataclass(frozen=True, slots=True)
class AddedMatmul:
    """What LoRA adds to a matmul: h f. h: [N, R], contiguous; f: [R, C], any strides."""

    h_NR: Tensor
    f_RC: Tensor


def quantise_rows_fused(
    x_NC: Tensor, words_2N: Tensor | None = None, factor_C: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`int8_rounding.quantise_rows` of x, times `factor_C` where there is one, in one pass.

    Args:
        x_NC: rows may lie apart, columns not.
        words_2N: int32, contiguous; None: to the nearest.
        factor_C: fp32.
    """
    x_NC = x_NC if x_NC.stride(1) == 1 else x_NC.contiguous()
    rows, columns = x_NC.shape
    out_NC = x_NC.new_empty(rows, columns, dtype=torch.int8)
    scale_N1 = x_NC.new_empty(rows, 1, dtype=torch.float32)
    words = (None, None) if words_2N is None else words_2N.contiguous().unbind(0)
    block = triton.next_power_of_2(columns)
    quantise_kernel[(rows,)](
        x_NC, factor_C, *words, out_NC, scale_N1, columns, x_NC.stride(0),
        HAS_FACTOR=factor_C is not None, STOCHASTIC=words_2N is not None, BLOCK=block,
        num_warps=quantise_warps(block), enable_fp_fusion=False,
    )  # fmt: skip
    return out_NC, scale_N1


def quantise_warps(block: int) -> int:
    """For rows of `block` columns: each thread holds about 32 of them."""
    return min(16, max(1, block // 1024))


def scaled_matmul(
    x8_NK: Tensor,
    w8_KC: Tensor,
    row_scale_N1: Tensor,
    dtype: torch.dtype,
    *,
    column_scale_C: Tensor | None = None,
    bias_C: Tensor | None = None,
    added: AddedMatmul | None = None,
) -> Tensor:
    """x w of int8 matrices times their scales, plus bias, plus what LoRA adds; [N, C] in `dtype`.

    Args:
        x8_NK: contiguous.
        w8_KC: any strides: one weight serves forward, transposed, and backward.
    """
    (rows, depth), columns = x8_NK.shape, w8_KC.shape[1]
    out_NC = x8_NK.new_empty(rows, columns, dtype=dtype)
    h, f, rank, f_strides = None, None, 0, [0, 0]
    if added is not None:
        h, f, rank, f_strides = added.h_NR, added.f_RC, added.h_NR.shape[1], [*added.f_RC.stride()]
    tiles = triton.cdiv(rows, ROWS) * triton.cdiv(columns, COLUMNS)
    matmul_kernel[(tiles,)](
        x8_NK, w8_KC, row_scale_N1, column_scale_C, bias_C, h, f, out_NC,
        rows, columns, depth, *w8_KC.stride(), rank, *f_strides,
        HAS_SCALE=column_scale_C is not None, HAS_BIAS=bias_C is not None, RANKS=padded_rank(rank),
        ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH, TOGETHER=TOGETHER,
        num_warps=MATMUL_WARPS, num_stages=MATMUL_STAGES,
    )  # fmt: skip
    return out_NC


def padded_rank(rank: int) -> int:
    """How many ranks a turn of the loop adds; 0: nothing is added."""
    return 0 if rank == 0 else min(MOST_RANKS, max(FEWEST_RANKS, triton.next_power_of_2(rank)))

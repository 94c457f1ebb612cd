"""Frozen projections in int8: an int8 weight with a scale per output, multiplied with inputs in int8.

Forward, inputs are rotated (`int8_rotation`) and quantised per token to the nearest. Backward, the output
scale goes into the gradient before that is quantised per token, stochastically (`int8_rounding`), so that one
int8 weight, a rotated one, serves both products. Their sums are exact int32.

Shape legend: N tokens, I input features, O output features, K summed over, C columns.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from persianmind.model.int8_rotation import rotate_blocks
from persianmind.model.int8_rounding import quantise_rows, row_words

# How the gradient of an input is made: stochastic and nearest name its rounding to int8, float multiplies the
# gradient as it is with the dequantised weight. docs/training.md has what each does to the loss.
GradientKind = Literal["stochastic", "nearest", "float"]
# An fp32 sum of products of two int8 numbers is exact while it stays below 2^24, in any order.
EXACT_TERMS = 1024
# cuBLAS refuses int8 products of 16 rows or fewer, and of lengths that are no multiple of 8.
FEWEST_ROWS = 32
MULTIPLE = 8

_LIBRARY = torch.library.Library("persianmind", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "int8_projection(Tensor x8, Tensor x_scale, Tensor weight, Tensor scale, Tensor? bias, ScalarType dtype)"
    " -> Tensor"
)
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "int8_input_gradient(Tensor dy8, Tensor dy_scale, Tensor weight, ScalarType dtype) -> Tensor"
)


@functools.cache
def has_int8_products(machine: str = platform.machine()) -> bool:
    """Whether this CPU multiplies int8 by itself; without, torch takes a second for each GFLOP."""
    if machine.lower() not in ("x86_64", "amd64"):
        return False
    found = torch.cpu.get_capabilities()  # type: ignore[no-untyped-call]
    return any(found.get(name, False) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def int8_product(a_NK: Tensor, b_KC: Tensor) -> Tensor:
    """The exact product of two int8 matrices, int32 [N, C]; the same bits on every device."""
    if a_NK.is_cuda:
        rows = len(a_NK)
        if rows < FEWEST_ROWS:
            a_NK = nn.functional.pad(a_NK, (0, 0, 0, FEWEST_ROWS - rows))
        return torch._int_mm(a_NK, b_KC)[:rows]
    return torch._int_mm(a_NK, b_KC) if has_int8_products() else _product_in_parts(a_NK, b_KC)


def _product_in_parts(a_NK: Tensor, b_KC: Tensor) -> Tensor:
    """By fp32 products of parts so short that these are exact."""
    total_NC: Tensor | None = None
    for start in range(0, a_NK.shape[1], EXACT_TERMS):
        part = slice(start, start + EXACT_TERMS)
        part_NC = torch.mm(a_NK[:, part].float(), b_KC[part].float()).to(torch.int32)
        total_NC = part_NC if total_NC is None else total_NC.add_(part_NC)
    assert total_NC is not None
    return total_NC


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
    y_NO = int8_product(x8_NI, weight_OI.t()).to(torch.float32).mul_(x_scale_N1).mul_(scale_O)
    return (y_NO if bias_O is None else y_NO.add_(bias_O)).to(dtype)


@torch.library.impl(_LIBRARY, "int8_input_gradient", "CompositeExplicitAutograd")
def _int8_input_gradient(
    dy8_NO: Tensor, dy_scale_N1: Tensor, weight_OI: Tensor, dtype: torch.dtype
) -> Tensor:
    """dY W, [N, I] in `dtype`, of a dY that has the output scale in it."""
    return int8_product(dy8_NO, weight_OI).to(torch.float32).mul_(dy_scale_N1).to(dtype)


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


def input_gradient(
    dy_NO: Tensor, weight_OI: Tensor, scale_O: Tensor, words_2N: Tensor | None, kind: GradientKind
) -> Tensor:
    """The gradient of a projection's rotated input, [N, I] in the dtype of `dy_NO`.

    Args:
        weight_OI, scale_O: int8 of the rotated weight, and fp32.
        words_2N: by which a stochastic rounding is drawn, see `int8_rounding.row_words`.
        kind: how.
    """
    if kind == "float":
        return torch.mm(dy_NO, dequantise(weight_OI, scale_O, dy_NO.dtype))
    if kind == "stochastic" and words_2N is None:
        raise RuntimeError("a gradient through an int8 base needs the batch's sample_keys to be rounded by")
    dy8_NO, dy_scale_N1 = quantise_rows(
        dy_NO.to(torch.float32) * scale_O, words_2N if kind == "stochastic" else None
    )
    found: Tensor = int8_input_gradient(dy8_NO, dy_scale_N1, weight_OI, dy_NO.dtype)
    return found


def dequantise(weight_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> Tensor:
    """The rotated weight that an int8 one stands for."""
    return (weight_OI.to(torch.float32) * scale_O.unsqueeze(1)).to(dtype)


class _Int8Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        scale_O: Tensor,
        rotation_KK: Tensor,
        bias_O: Tensor | None,
        words_2N: Tensor | None,
        kind: GradientKind,
    ) -> Tensor:
        x8_NI, x_scale_N1 = quantise_rows(rotate_blocks(x.reshape(-1, x.shape[-1]), rotation_KK))
        ctx.save_for_backward(weight_OI, scale_O, rotation_KK, words_2N)
        ctx.kind = kind
        y_NO: Tensor = int8_projection(x8_NI, x_scale_N1, weight_OI, scale_O, bias_O, x.dtype)
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        weight_OI, scale_O, rotation_KK, words_2N = ctx.saved_tensors
        dx_NI = input_gradient(dy.reshape(-1, dy.shape[-1]), weight_OI, scale_O, words_2N, ctx.kind)
        of_input = rotate_blocks(dx_NI, rotation_KK).view(*dy.shape[:-1], -1)
        return of_input, None, None, None, None, None, None


class Int8Linear(nn.Linear):
    """A frozen projection held as int8 [O, I], rotated by the block, with an fp32 scale per output.

    rotation: H [K, K] in the dtype of the model. words_2N: of the micro-batch at work, from `SampleRounding`;
    None: its gradient cannot be rounded.
    kind: how gradients go through it.
    """

    scale: Tensor
    rotation: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, rotation: Tensor, bias: Tensor | None) -> None:
        """weight: int8 [O, I]; scale: fp32 [O]; rotation: [K, K] and bias: [O] in the dtype of the model."""
        nn.Module.__init__(self)  # nn.Linear's own would make a float weight first
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)  # type: ignore[assignment]
        self.register_buffer("scale", scale)  # transformers empties those that are not persistent
        self.register_buffer("rotation", rotation)
        self.words_2N: Tensor | None = None
        self.kind: GradientKind = "stochastic"

    @property
    def W_q(self) -> Tensor:
        """What tells peft (DoRA) to ask `dequantize` for the weight."""
        return self.weight

    def dequantize(self) -> Tensor:
        """The weight [O, I] in fp32."""
        rotated_OI = dequantise(self.weight, self.scale, torch.float32)
        found: Tensor = rotate_blocks(rotated_OI, self.rotation.float())
        return found

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] to [..., O], in the input's dtype."""
        y: Tensor = _Int8Linear.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.scale, self.rotation, self.bias, self.words_2N, self.kind
        )
        return y

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Linear:
        """Moves with its model, but keeps an fp32 scale where the model is cast to 16 bits."""
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype != torch.float32:
            self.scale = scale.to(self.scale.device)
        return self


class SampleRounding:
    """Hands the words of a micro-batch's samples to the int8 projections of a model, each its own."""

    def __init__(self, causal_lm: nn.Module) -> None:
        self._projections = int8_projections(causal_lm)

    def set(self, sample_keys_B: Tensor | None, seq_len: int) -> None:
        """For the forward pass that comes, the backward pass after it, and what that recomputes.

        Args:
            sample_keys_B: int64, of each sequence; None: gradients cannot be rounded.
            seq_len: of the sequences.
        """
        if not self._projections:
            return
        words: Any = [None] * len(self._projections)
        if sample_keys_B is not None and torch.is_grad_enabled():
            words = row_words(sample_keys_B, seq_len, len(self._projections))
        for projection, of_it in zip(self._projections, words, strict=True):
            projection.words_2N = of_it


def int8_projections(model: nn.Module) -> list[Int8Linear]:
    """In the order of the layers, which numbers them."""
    return [module for module in model.modules() if isinstance(module, Int8Linear)]

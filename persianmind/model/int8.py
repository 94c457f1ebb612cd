"""Frozen projections in int8: an int8 weight with a scale per output, multiplied with inputs in int8.

Forward, inputs are rotated (`int8_rotation`) and quantised per token to the nearest. Backward, the output
scale goes into the gradient before that is quantised per token, stochastically (`int8_rounding`), so that one
int8 weight, a rotated one, serves both matmuls. Their sums are exact int32.

Shape legend: N tokens, I input features, O output features, K of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from persianmind.model.int8_matmuls import int8_input_gradient, int8_projection, quantise
from persianmind.model.int8_rotation import rotate_blocks
from persianmind.model.int8_rounding import row_words

# How the gradient of an input is made: stochastic and nearest name its rounding to int8, float multiplies the
# gradient as it is with the dequantised weight. What each does to the loss: benchmarks/int8_quality.py.
GradientKind = Literal["stochastic", "nearest", "float"]


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
    dy8_NO, dy_scale_N1 = quantise(dy_NO, words_2N if kind == "stochastic" else None, scale_O)
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
        x8_NI, x_scale_N1 = quantise(rotate_blocks(x.reshape(-1, x.shape[-1]), rotation_KK))
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


@contextmanager
def round_to_nearest(model: nn.Module) -> Iterator[None]:
    """In the block gradients need no keys, and the same gradient is rounded the same way in every batch."""
    before = [(projection, projection.kind) for projection in int8_projections(model)]
    for projection, _ in before:
        projection.kind = "nearest"
    try:
        yield
    finally:
        for projection, kind in before:
            projection.kind = kind


def int8_projections(model: nn.Module) -> list[Int8Linear]:
    """In the order of the layers, which numbers them."""
    return [module for module in model.modules() if isinstance(module, Int8Linear)]

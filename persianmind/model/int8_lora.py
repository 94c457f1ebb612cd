"""Folded LoRA over int8 projections: see `folded_lora`, whose passes these are, and `int8`.

Shape legend: N tokens, I input features, O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from persianmind.model.int8 import GradientKind, Int8Linear, input_gradient
from persianmind.model.int8_matmuls import int8_projection, quantise, triton_runs_on
from persianmind.model.int8_rotation import rotate_blocks

_LIBRARY = torch.library.Library("persianmind", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "int8_lora_projection(Tensor x, Tensor x8, Tensor x_scale, Tensor weight, Tensor scale, Tensor? bias,"
    " Tensor A, Tensor B, float lora_scale) -> (Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "int8_lora_projection", "CompositeExplicitAutograd")
def _int8_lora_projection(
    x_NI: Tensor,
    x8_NI: Tensor,
    x_scale_N1: Tensor,
    weight_OI: Tensor,
    scale_O: Tensor,
    bias_O: Tensor | None,
    A_RI: Tensor,
    B_OR: Tensor,
    lora_scale: float,
) -> tuple[Tensor, Tensor]:
    """(x W^T + bias + h B^T [N, O], h = scale * x A^T [N, R]), as `persianmind::lora_projection`."""
    h_NR = torch.mm(x_NI, A_RI.t()).mul_(lora_scale)
    if triton_runs_on(x_NI.device):
        from persianmind.model.int8_triton import AddedMatmul, scaled_matmul

        added = AddedMatmul(h_NR, B_OR.t())
        return scaled_matmul(
            x8_NI, weight_OI.t(), x_scale_N1, x_NI.dtype, column_scale_C=scale_O, bias_C=bias_O, added=added
        ), h_NR
    y_NO = int8_projection(x8_NI, x_scale_N1, weight_OI, scale_O, bias_O, x_NI.dtype)
    return y_NO.addmm_(h_NR, B_OR.t()), h_NR


int8_lora_projection = torch.ops.persianmind.int8_lora_projection.default


@torch.library.register_fake(  # type: ignore[untyped-decorator]
    "persianmind::int8_lora_projection", lib=_LIBRARY
)
def _(
    x_NI: Tensor, x8: Any, x_scale: Any, weight_OI: Tensor, scale: Any, bias: Any, A_RI: Tensor, *_: Any
) -> Any:
    return x_NI.new_empty(len(x_NI), len(weight_OI)), x_NI.new_empty(len(x_NI), len(A_RI))


@register_flop_formula(torch.ops.persianmind.int8_lora_projection)
def _flops(
    x_NI: Any, x8: Any, x_scale: Any, weight_OI: Any, scale: Any, bias: Any, A_RI: Any, *_: Any, **__: Any
) -> int:
    tokens, rank = x_NI[0], A_RI[0]
    return int(2 * tokens * (weight_OI[0] * weight_OI[1] + rank * (weight_OI[0] + weight_OI[1])))


class _Int8Projections(torch.autograd.Function):
    """Projections of one input, which is quantised and saved once; its gradient is summed in one buffer.

    tensors: of each projection `_TENSORS`: weight, scale, bias, words, A, B.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rotation_KK: Tensor,
        kind: GradientKind,
        lora_scales: Sequence[float],
        *tensors: Any,
    ) -> tuple[Tensor, ...]:
        x_NI = x.reshape(-1, x.shape[-1])
        x8_NI, x_scale_N1 = quantise(rotate_blocks(x_NI, rotation_KK))
        outputs, hidden = [], []
        for i, lora_scale in enumerate(lora_scales):
            weight_OI, scale_O, bias_O, _, A_RI, B_OR = tensors[_TENSORS * i : _TENSORS * (i + 1)]
            y_NO, h_NR = int8_lora_projection(
                x_NI, x8_NI, x_scale_N1, weight_OI, scale_O, bias_O, A_RI, B_OR, lora_scale
            )
            outputs.append(y_NO.view(*x.shape[:-1], -1))
            hidden.append(h_NR)
        ctx.save_for_backward(x, rotation_KK, *hidden, *tensors)
        ctx.kind, ctx.lora_scales = kind, lora_scales
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        count = len(ctx.lora_scales)
        x, rotation_KK, *saved = ctx.saved_tensors
        hidden, tensors = saved[:count], saved[count:]
        x_NI, rotated_NI = x.reshape(-1, x.shape[-1]), None
        of_hidden: list[tuple[Tensor, Tensor]] = []
        of_tensors: list[Tensor | None] = []
        for i, dy in enumerate(gradients):
            weight_OI, scale_O, _, words_2N, A_RI, B_OR = tensors[_TENSORS * i : _TENSORS * (i + 1)]
            needs_A, needs_B = ctx.needs_input_grad[_BEFORE + _TENSORS * i + 4 : _BEFORE + _TENSORS * (i + 1)]
            dy_NO = dy.reshape(-1, dy.shape[-1])
            dh_NR = torch.mm(dy_NO, B_OR).mul_(ctx.lora_scales[i])
            of_tensors += [None] * 4
            of_tensors.append(torch.mm(dh_NR.t(), x_NI) if needs_A else None)
            of_tensors.append(torch.mm(dy_NO.t(), hidden[i]) if needs_B else None)
            of_hidden.append((dh_NR, A_RI))
            if ctx.needs_input_grad[0]:
                part_NI = input_gradient(dy_NO, weight_OI, scale_O, words_2N, ctx.kind)
                rotated_NI = part_NI if rotated_NI is None else rotated_NI.add_(part_NI)
        of_input = None
        if rotated_NI is not None:
            gradient_NI = rotate_blocks(rotated_NI, rotation_KK)
            for dh_NR, A_RI in of_hidden:
                gradient_NI.addmm_(dh_NR, A_RI)
            of_input = gradient_NI.view(x.shape)
        return of_input, None, None, None, *of_tensors


_BEFORE, _TENSORS = 4, 6  # arguments before the projections' own, and of each


def project_int8(x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
    """The outputs of peft's LoRA layers of one input, whose bases are `Int8Linear`."""
    tensors: list[Tensor | None] = []
    for layer in layers:
        base: Int8Linear = layer.get_base_layer()
        A_RI, B_OR = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        tensors += [base.weight, base.scale, base.bias, base.words_2N, A_RI, B_OR]
    lora_scales = tuple(float(layer.scaling["default"]) for layer in layers)
    dtype = layers[0].lora_A["default"].weight.dtype
    first: Int8Linear = layers[0].get_base_layer()
    found: tuple[Tensor, ...] = _Int8Projections.apply(  # type: ignore[no-untyped-call]
        x.to(dtype), first.rotation, first.kind, lora_scales, *tensors
    )
    return found

"""LoRA without passes of its own over the activations.

peft computes base(x) + scale * B(A(x)): besides the small matmuls that is a scaled copy and a sum of whole
outputs, and in the backward pass a sum of whole input gradients, for every projection. Here the scale goes
into the small matmul, the adapter is added by the matmul that computes it, and projections that read the
same input share it and its gradient's buffer. Modules, names and files stay peft's; only `forward` differs,
and only where it is the same mathematics: no dropout at work, no DoRA, not merged.

Shape legend: N tokens, I input features, O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from persianmind.model.int8 import Int8Linear
from persianmind.model.int8_lora import project_int8

# Projections of one block that read the same input, as transformers calls them one after the other.
SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


# Not torch.library.custom_op, whose checks in Python take longer than an H100 takes for a small matmul.
_LIBRARY = torch.library.Library("persianmind", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "lora_projection(Tensor x, Tensor weight, Tensor? bias, Tensor A, Tensor B, float scale)"
    " -> (Tensor, Tensor)"
)


@torch.library.impl(_LIBRARY, "lora_projection", "CompositeExplicitAutograd")
def _lora_projection(
    x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, A_RI: Tensor, B_OR: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(x W^T + bias + h B^T [N, O], h = scale * x A^T [N, R]).

    One operation to whoever looks at operations: recomputation saves its output, and nothing in between.
    """
    h_NR = torch.mm(x_NI, A_RI.t()).mul_(scale)
    y_NO = torch.mm(x_NI, weight_OI.t()) if bias_O is None else torch.addmm(bias_O, x_NI, weight_OI.t())
    return y_NO.addmm_(h_NR, B_OR.t()), h_NR


lora_projection = torch.ops.persianmind.lora_projection.default


@torch.library.register_fake("persianmind::lora_projection", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(x_NI: Tensor, weight_OI: Tensor, bias_O: Any, A_RI: Tensor, B_OR: Tensor, scale: float) -> Any:
    return x_NI.new_empty(len(x_NI), len(weight_OI)), x_NI.new_empty(len(x_NI), len(A_RI))


@register_flop_formula(torch.ops.persianmind.lora_projection)
def _flops(x_NI: Any, weight_OI: Any, bias_O: Any, A_RI: Any, B_OR: Any, scale: Any, **_: Any) -> int:
    tokens, rank = x_NI[0], A_RI[0]
    return int(2 * tokens * (weight_OI[0] * weight_OI[1] + rank * (weight_OI[0] + weight_OI[1])))


class _Projections(torch.autograd.Function):
    """Projections of one input: x is saved once, and its gradient summed in one buffer.

    readers: for each projection what gives its frozen weight [O, I] and bias; a 4-bit one is unpacked anew in
    the backward pass, as bitsandbytes does.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, readers: Sequence[Callable[[], Any]], scales: Sequence[float], *factors: Tensor
    ) -> tuple[Tensor, ...]:
        x_NI = x.reshape(-1, x.shape[-1])
        outputs, hidden = [], []
        for read, scale, A_RI, B_OR in zip(readers, scales, factors[::2], factors[1::2], strict=True):
            y_NO, h_NR = lora_projection(x_NI, *read(), A_RI, B_OR, scale)
            outputs.append(y_NO.view(*x.shape[:-1], -1))
            hidden.append(h_NR)
        ctx.save_for_backward(x, *factors, *hidden)
        ctx.readers, ctx.scales = readers, scales
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        count = len(ctx.scales)
        x, *saved = ctx.saved_tensors
        factors, hidden = saved[: 2 * count], saved[2 * count :]
        x_NI, gradient_NI = x.reshape(-1, x.shape[-1]), None
        of_factors: list[Tensor | None] = []
        for i, dy in enumerate(gradients):
            A_RI, B_OR = factors[2 * i], factors[2 * i + 1]
            dy_NO = dy.reshape(-1, dy.shape[-1])
            dh_NR = torch.mm(dy_NO, B_OR).mul_(ctx.scales[i])
            of_factors.append(torch.mm(dh_NR.t(), x_NI) if ctx.needs_input_grad[3 + 2 * i] else None)
            of_factors.append(torch.mm(dy_NO.t(), hidden[i]) if ctx.needs_input_grad[4 + 2 * i] else None)
            if not ctx.needs_input_grad[0]:
                continue
            weight_OI, _ = ctx.readers[i]()
            if gradient_NI is None:
                gradient_NI = torch.mm(dy_NO, weight_OI)
            else:
                torch.addmm(gradient_NI, dy_NO, weight_OI, out=gradient_NI)
            torch.addmm(gradient_NI, dh_NR, A_RI, out=gradient_NI)
        of_input = None if gradient_NI is None else gradient_NI.view(x.shape)
        return of_input, None, None, *of_factors


@dataclass(slots=True)
class _Group:
    """LoRA layers that read the same input. The first one called computes all; the others fetch theirs.

    waiting: input and outputs that were not fetched yet, by place.
    """

    layers: list[Any]
    waiting: dict[int, Tensor] = field(default_factory=dict)
    of_input: Tensor | None = None

    def forward(self, place: int, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # which follows no state; the compiler joins what can be joined
            return _project(x, [self.layers[place]])[0]
        if self.of_input is not x or place not in self.waiting:
            outputs = _project(x, self.layers)
            self.waiting, self.of_input = dict(enumerate(outputs)), x
        found = self.waiting.pop(place)
        if not self.waiting:
            self.of_input = None
        return found


def _project(x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
    if isinstance(layers[0].get_base_layer(), Int8Linear):
        return project_int8(x, layers)
    factors = [one.weight for layer in layers for one in (layer.lora_A["default"], layer.lora_B["default"])]
    scales = [float(layer.scaling["default"]) for layer in layers]
    readers = [_reader(layer.get_base_layer()) for layer in layers]
    found: tuple[Tensor, ...] = _Projections.apply(  # type: ignore[no-untyped-call]
        x.to(factors[0].dtype), readers, scales, *factors
    )
    return found


def _reader(base: nn.Module) -> Callable[[], Any]:
    """What gives (weight [O, I], bias) of a frozen projection, in the dtype it computes in."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return lambda: (base.weight, base.bias)

    def unpack() -> Any:
        from bitsandbytes.functional import dequantize_4bit

        weight_OI = dequantize_4bit(base.weight, state).to(base.compute_dtype)
        bias: Any = base.bias
        return weight_OI, None if bias is None else bias.to(base.compute_dtype)

    return unpack


def fold_adapters(causal_lm: nn.Module) -> int:
    """Gives every adapted projection of a model the folded forward.

    Returns:
        How many have it; those with DoRA or an adapter of another kind keep peft's.
    """
    from peft.tuners.lora import LoraLayer

    count = 0
    for module in causal_lm.modules():
        layers = {
            n: one for n, one in module.named_children() if isinstance(one, LoraLayer) and _is_plain(one)
        }
        shared = [[n for n in names if n in layers] for names in SHARED_INPUT]
        alone = [[n] for n in layers if not any(n in names for names in shared)]
        for names in (*shared, *alone):
            group = _Group([layers[n] for n in names])
            for place, name in enumerate(names):
                _replace_forward(layers[name], group, place)
            count += len(names)
    return count


def unfold_adapters(causal_lm: nn.Module) -> None:
    """Gives every adapted projection peft's own forward again, to measure or compare with."""
    from peft.tuners.lora import LoraLayer

    for module in causal_lm.modules():
        if isinstance(module, LoraLayer):
            vars(module).pop("forward", None)


def _is_plain(layer: Any) -> bool:
    """Whether peft's own forward of it is base(x) + scale * B(A(x))."""
    return (
        isinstance(layer.get_base_layer(), nn.Linear)
        and list(layer.lora_A) == ["default"]
        and not any(layer.use_dora.values())
        and not any(one.bias is not None for one in (layer.lora_A["default"], layer.lora_B["default"]))
    )


def _replace_forward(layer: Any, group: _Group, place: int) -> None:
    of_peft = layer.forward

    def forward(x: Tensor, *arguments: Any, **options: Any) -> Any:
        drops = layer.training and isinstance(layer.lora_dropout["default"], nn.Dropout)
        if arguments or options or drops or layer.disable_adapters or layer.merged:
            return of_peft(x, *arguments, **options)
        return group.forward(place, x)

    layer.forward = forward

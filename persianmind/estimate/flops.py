"""Floating-point work of a trained token, and what known devices can do at most: together, MFU."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from persianmind.estimate.gpus import known_gpu

if TYPE_CHECKING:
    from torch import nn

    from persianmind.model.adapted import AdaptedModel


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of one device; None where the device is not known, or has no matmul of this precision."""
    gpu = known_gpu(device_name)
    return None if gpu is None else gpu.peak_flops.get(precision)


def flops_per_token(model: AdaptedModel, seq_len: int) -> float:
    """Floating-point operations of forward and backward for one token of a sequence, recomputation not
    counted.

    After Chowdhery et al. (arXiv 2204.02311, appendix B): 2 per weight forward, 2 per weight backward for the
    activations, and 2 per weight for its gradient, which here only trained weights get; attention over the
    whole sequence adds 12 x layers x width x length / 2 (causal). Looking up embeddings is not counted.
    Layers below everything that is trained have a forward pass alone.
    """
    config: Any = model.causal_lm.config
    input_only = {id(value) for value in model.input_table.parameters()}
    if model.input_table is not model.output_table:
        weights = [value for value in model.parameters() if id(value) not in input_only]
    else:
        weights = list(model.parameters())
    count = sum(map(weight_count, weights))
    trained = sum(value.numel() for value in weights if value.requires_grad)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = int(config.num_attention_heads * head_width)
    frozen, forward_weights = _without_gradient(model)
    attention = 2.0 * (3 * int(config.num_hidden_layers) - 2 * frozen) * width * seq_len
    return 4.0 * count - 2.0 * forward_weights + 2.0 * trained + attention


def _without_gradient(model: AdaptedModel) -> tuple[int, int]:
    """(decoder layers from the first on that no gradient comes to, their weights)."""
    if any(value.requires_grad for value in model.input_table.parameters()):
        return 0, 0
    decoder: Any = model.causal_lm.get_decoder()  # type: ignore[operator]
    frozen = list(itertools.takewhile(_is_frozen, decoder.layers))
    return len(frozen), sum(weight_count(value) for layer in frozen for value in layer.parameters())


def _is_frozen(layer: nn.Module) -> bool:
    return not any(value.requires_grad for value in layer.parameters())


def weight_count(parameter: Any) -> int:
    """Weights in a parameter; a 4-bit one packs two into a byte and keeps its shape beside."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())

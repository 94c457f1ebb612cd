"""Floating-point work of a trained token, and what known devices can do at most: together, MFU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from persianmind.estimate.gpus import known_gpu

if TYPE_CHECKING:
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
    attention = 6.0 * int(config.num_hidden_layers) * width * seq_len
    return 4.0 * count + 2.0 * trained + attention


def weight_count(parameter: Any) -> int:
    """Weights in a parameter; a 4-bit one packs two into a byte and keeps its shape beside."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())

"""Floating-point work of a trained token, and what known devices can do at most: together, MFU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel

# Dense bf16 matmuls with fp32 sums, FLOP/s, from NVIDIA's data sheets and architecture white papers (the
# appendices of GA102 and AD102 for GeForce cards). The longest name within the device's own name counts.
PEAK_BF16 = {
    "RTX 3090 Ti": 80e12,
    "RTX 3090": 71e12,
    "RTX 3080": 59.5e12,
    "RTX 4090": 165.2e12,
    "RTX 4080": 97.5e12,
    "RTX A6000": 154.8e12,
    "L40S": 362e12,
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "H200": 989.4e12,
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of one device; None where the device is not known, or the precision is not bf16."""
    names = [name for name in PEAK_BF16 if name in device_name]
    if not names or precision != "bf16":
        return None
    return PEAK_BF16[max(names, key=len)]


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

"""What the backward pass finds again and what it computes again.

`full` keeps a layer's input alone and runs the layer a second time: a third of a step's arithmetic.
`selective` keeps what is expensive, the outputs of matmuls and of attention, and computes norms, rotations,
activations and residuals again: no matmul runs twice. On a Llama-2 shape that is 11.4 x hidden size numbers
per token and layer (q, k, v, o and attention 5 x; gate and up 5.4 x; down 1 x), and attention's statistics.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from persianmind.recipe.train import FullLayers, full_layer_count

_SAVED = frozenset((
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_grouped_mm", "aten::_int_mm",
    "persianmind::lora_projection", "persianmind::int8_lora_projection", "persianmind::int8_projection",
    "persianmind::document_attention",
    "aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn", "flash_attn::_flash_attn_varlen_forward",
))  # fmt: skip


def set_recompute(causal_lm: Any, setting: str | FullLayers) -> None:
    """Makes the layers recompute while they train, as the recipe's `gradient_checkpointing` says.

    `auto` does nothing: a run decides it before its model is made, and nobody else trains.
    """
    if setting in ("off", "auto"):
        return
    layers = list(causal_lm.get_decoder().layers)
    causal_lm.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    selective = partial(checkpoint, use_reentrant=False, context_fn=_contexts)
    for layer in layers[full_layer_count(setting, len(layers)) :]:
        layer._gradient_checkpointing_func = selective
    causal_lm.train()


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(_: Any, operation: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    schema = getattr(operation, "_schema", None)
    is_saved = schema is not None and schema.name in _SAVED
    return CheckpointPolicy.MUST_SAVE if is_saved else CheckpointPolicy.PREFER_RECOMPUTE

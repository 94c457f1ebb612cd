"""Attention of packed documents without a mask: each token sees those before it in its own document.

One function, registered with transformers' AttentionInterface and without a mask function, so that
transformers makes none. Which kernel it calls depends on device and precision:

- on a GPU of compute capability 8.0 and up, in bf16, `torch.nn.attention.varlen.varlen_attn` with the
  offsets of the documents, whatever the number of sequences; with `train.attention: flash_attention_2`
  flash-attn's own;
- elsewhere SDPA document by document; a sliding window in blocks of the window;
- with a soft-cap, which neither kernel has: our own softmax per document (softcap.py).

Shape legend: B batch, L sequence length, H query heads, K key and value heads, D head size, T = B x L tokens,
S tokens of one document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from persianmind.common.errors import BaseModelError
from persianmind.model.document_attention import document_attention
from persianmind.model.documents import Documents

MAX_VARLEN_HEAD_SIZE = 256
# Names in transformers' registry: recipe value -> implementation. None holds a word that transformers itself
# looks for in a name.
IMPLEMENTATIONS = {
    "auto": "persianmind_packed",
    "sdpa": "persianmind_by_document",
    "flash_attention_2": "persianmind_packed_fa2",
}


@dataclass(frozen=True, slots=True)
class AttentionSettings:
    """scale: of the scores. window: how many tokens a query sees, itself among them; None: all before it.
    dropout: of the attention weights. softcap: of the scores, which no fused kernel has."""

    scale: float
    window: int | None
    dropout: float
    softcap: float | None


Kernel = Callable[[Tensor, Tensor, Tensor, Documents, AttentionSettings], Tensor]


def register_packed_attention() -> None:
    """Makes `IMPLEMENTATIONS` known to transformers; safe to call again."""
    from transformers import AttentionInterface

    for asked, name in IMPLEMENTATIONS.items():
        AttentionInterface.register(name, _ATTENTION[asked])


def hand_documents_on(causal_lm: nn.Module) -> None:
    """For decoders whose layers take `documents` and do not give them to their attention: each layer's
    attention gets them by itself, in recomputation as well, where the layer is called again."""
    for layer in causal_lm.get_decoder().layers:  # type: ignore[operator]
        _join(layer, layer.self_attn)


def _join(layer: nn.Module, attention: nn.Module) -> None:
    held: dict[str, Any] = {}

    def remember(_: nn.Module, __: Any, options: dict[str, Any]) -> None:
        held["documents"] = options.get("documents")

    def add(_: nn.Module, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, options | held

    layer.register_forward_pre_hook(remember, with_kwargs=True)
    attention.register_forward_pre_hook(add, with_kwargs=True)


def varlen_runs_on(device: torch.device) -> bool:
    """Whether the varlen kernel exists there. A device that is neither CUDA nor the CPU (meta, when a GPU is
    imitated or planned for) is taken for a GPU that has it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type != "cpu"


def keep_loops_uncompiled() -> None:
    """Before layers are compiled: a loop over documents would be compiled anew for every batch."""
    global _loop
    _loop = torch.compiler.disable(_loop_by_document)  # type: ignore[no-untyped-call]


def _packed(choose: Callable[[Tensor, float], Kernel]) -> Callable[..., tuple[Tensor, None]]:
    """A function as transformers wants it, over the kernel that `choose` names for query and dropout."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        documents: Documents | None = None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """[B, H, L, D] queries, [B, K, L, D] keys and values -> ([B, L, H, D of the values], None).

        Raises:
            BaseModelError: the decoder does not hand the documents on, brings a mask, or has attention sinks.
        """
        if documents is None or attention_mask is not None or s_aux is not None:
            raise _unsupported(module, documents, attention_mask)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        settings = AttentionSettings(scale, sliding_window, dropout, softcap)
        q, k, v = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
        if softcap is not None:
            out = _as_one_operation(q, k, v, documents, settings)
        else:
            kernel = choose(query, dropout)
            padding = query.shape[-1] - value.shape[-1]  # the fused kernels know one head size
            v = functional.pad(v, (0, padding)) if padding > 0 else v
            out = kernel(q, k, v, documents, settings)[..., : value.shape[-1]]
        return out.reshape(query.shape[0], query.shape[2], *out.shape[1:]), None

    return attention


def _unsupported(
    module: nn.Module, documents: Documents | None, attention_mask: Tensor | None
) -> BaseModelError:
    what = "has attention sinks"
    if documents is None:
        what = "does not hand the packed documents on to its layers"
    elif attention_mask is not None:
        what = "brings an attention mask of its own"
    return BaseModelError(
        f"{type(module).__name__} {what}, which packed attention cannot follow; use another base"
    )


def _choose_auto(query: Tensor, dropout: float) -> Kernel:
    fits = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= MAX_VARLEN_HEAD_SIZE
    return _varlen if fits and dropout == 0.0 and varlen_runs_on(query.device) else _sdpa


def _varlen(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    documents: Documents,
    settings: AttentionSettings,
) -> Tensor:
    """One call for all documents, whatever the number of sequences."""
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {
        "scale": settings.scale,
        # (-1, 0) is causal; (W - 1, 0) a causal window of W tokens, the token itself among them.
        "window_size": (-1 if settings.window is None else settings.window - 1, 0),
    }
    if (group := query_THD.shape[1] // key_TKD.shape[1]) > 1:
        if "enable_gqa" in signature(varlen_attn).parameters:
            options["enable_gqa"] = True
        else:  # older torch
            key_TKD = key_TKD.repeat_interleave(group, dim=1)
            value_TKD = value_TKD.repeat_interleave(group, dim=1)
    offsets, longest = documents.offsets, documents.seq_len
    return varlen_attn(  # type: ignore[return-value]
        query_THD, key_TKD, value_TKD, offsets, offsets, longest, longest, **options
    )


def _flash(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    documents: Documents,
    settings: AttentionSettings,
) -> Tensor:
    """flash-attn's own kernel, by its varlen entry: the plain one would let documents see each other."""
    from flash_attn import flash_attn_varlen_func

    out_THD: Tensor = flash_attn_varlen_func(
        query_THD,
        key_TKD,
        value_TKD,
        cu_seqlens_q=documents.offsets,
        cu_seqlens_k=documents.offsets,
        max_seqlen_q=documents.seq_len,
        max_seqlen_k=documents.seq_len,
        dropout_p=settings.dropout,
        softmax_scale=settings.scale,
        causal=True,
        window_size=(-1, -1) if settings.window is None else (settings.window - 1, 0),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return out_THD


def _sdpa(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    documents: Documents,
    settings: AttentionSettings,
) -> Tensor:
    """Document by document; on the CPU as one operation, where it does not drop out."""
    if query_THD.device.type == "cpu" and settings.dropout == 0.0:
        return _as_one_operation(query_THD, key_TKD, value_TKD, documents, settings)

    def one(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
        windowed = settings.window is not None and len(query) > settings.window
        out = (_windowed if windowed else _causal)(q, k, v, settings)
        return out.squeeze(0).transpose(0, 1)

    return _loop(one, query_THD, key_TKD, value_TKD, documents)


def _as_one_operation(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    documents: Documents,
    settings: AttentionSettings,
) -> Tensor:
    return document_attention(
        query_THD,
        key_TKD,
        value_TKD,
        documents.host_offsets,
        scale=settings.scale,
        window=settings.window,
        softcap=settings.softcap,
    )


def _loop_by_document(
    one: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor, documents: Documents
) -> Tensor:
    """`split`, not slices: the backward of a slice fills a whole tensor with zeros."""
    parts = zip(*(torch.split(tensor, list(documents.lengths)) for tensor in (q, k, v)), strict=True)
    return torch.cat([one(*part) for part in parts])


_loop: Callable[..., Tensor] = _loop_by_document


def _causal(query_HSD: Tensor, key_KSD: Tensor, value_KSD: Tensor, settings: AttentionSettings) -> Tensor:
    return _scaled_dot_product(query_HSD, key_KSD, value_KSD, settings, is_causal=True)


def _windowed(query_HSD: Tensor, key_KSD: Tensor, value_KSD: Tensor, settings: AttentionSettings) -> Tensor:
    """Blocks of `window` queries; each sees its own block of keys and the one before, under a small mask."""
    window = settings.window or 0
    queries, keys, values = (torch.split(one, window, dim=2) for one in (query_HSD, key_KSD, value_KSD))
    parts = []
    for number, (query, key, value) in enumerate(zip(queries, keys, values, strict=True)):
        before = 0
        if number:
            before = window
            key = torch.cat([keys[number - 1], key], dim=2)
            value = torch.cat([values[number - 1], value], dim=2)
        distance = torch.arange(query.shape[2], device=query.device).unsqueeze(1) + before
        distance = distance - torch.arange(key.shape[2], device=query.device)
        seen = (distance >= 0) & (distance < window)
        parts.append(_scaled_dot_product(query, key, value, settings, attn_mask=seen))
    return torch.cat(parts, dim=2)


def _scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, settings: AttentionSettings, **mask: Any
) -> Tensor:
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        scale=settings.scale,
        dropout_p=settings.dropout,
        enable_gqa=query.shape[1] != key.shape[1],
        **mask,
    )


packed_attention = _packed(_choose_auto)
_ATTENTION = {
    "auto": packed_attention,
    "sdpa": _packed(lambda *_: _sdpa),
    "flash_attention_2": _packed(lambda *_: _flash),
}

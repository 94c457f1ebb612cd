"""Attention document by document as one operation, forward and backward.

One operation to whoever looks at operations: torch.compile goes past it without a break, whatever the
documents of a batch, since where they begin is a tensor's values; recomputation saves its output with its
statistics, and nothing in between. Inside, each document is torch's fused attention of the CPU, or our own
softmax under a soft-cap (softcap.py, on any device).

Shape legend: T tokens of all documents, H query heads, K key and value heads, D head size, S tokens of a
document.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils.flop_counter import register_flop_formula

from persianmind.model.softcap import softcap_backward, softcap_bytes, softcap_flops, softcap_forward

_LIBRARY = torch.library.Library("persianmind", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "document_attention(Tensor query, Tensor key, Tensor value, Tensor offsets, float scale, int? window,"
    " float? softcap) -> (Tensor, Tensor)"
)
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "document_attention_backward(Tensor gradient, Tensor query, Tensor key, Tensor value, Tensor out,"
    " Tensor statistics, Tensor offsets, float scale, int? window, float? softcap)"
    " -> (Tensor, Tensor, Tensor)"
)
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def document_attention(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    host_offsets: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention within each document, [T, H, D].

    Args:
        host_offsets: on the CPU, where each document begins, and T at the end, as often as one likes.
        scale: of the scores, before the cap.
        window: how many tokens a query sees, itself among them; None: all before it.
        softcap: None: none, and then the tensors must be on the CPU.
    """
    out_THD: Tensor = _DocumentAttention.apply(  # type: ignore[no-untyped-call]
        query_THD, key_TKD, value_TKD, host_offsets, scale, window, softcap
    )
    return out_THD


class _DocumentAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        offsets: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        out, statistics = torch.ops.persianmind.document_attention.default(
            query, key, value, offsets, scale, window, softcap
        )
        ctx.save_for_backward(query, key, value, out, statistics, offsets)
        ctx.settings = (scale, window, softcap)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gradients = torch.ops.persianmind.document_attention_backward.default(
            gradient, *ctx.saved_tensors, *ctx.settings
        )
        return *gradients, None, None, None, None


@torch.library.impl(_LIBRARY, "document_attention", "CompositeExplicitAutograd")
def _forward(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    offsets: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """(out [T, H, D], log-sum-exp of the scores [T, H])."""
    out_THD, statistics_TH = _empty_results(query_THD, value_TKD)
    for document in _documents(offsets):
        q, k, v = (one[document] for one in (query_THD, key_TKD, value_TKD))
        if softcap is not None:
            parts = softcap_forward(q, k, v, scale=scale, softcap=softcap, window=window)
            out_THD[document], statistics_TH[document] = parts
            continue
        for queries, keys, mask in _blocks(q, window):
            out, statistics = _FLASH(
                *_as_heads(q[queries], k[keys], v[keys]), 0.0, mask is None, attn_mask=mask, scale=scale
            )
            out_THD[document][queries] = _as_tokens(out)
            statistics_TH[document][queries] = statistics.squeeze(0).t()
    return out_THD, statistics_TH


@torch.library.impl(_LIBRARY, "document_attention_backward", "CompositeExplicitAutograd")
def _backward(
    gradient_THD: Tensor,
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    out_THD: Tensor,
    statistics_TH: Tensor,
    offsets: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    of_query, of_key, of_value = results = _empty_gradients(query_THD, key_TKD, value_TKD)
    for document in _documents(offsets):
        given = (gradient_THD, query_THD, key_TKD, value_TKD, out_THD, statistics_TH)
        dy, q, k, v, out, statistics = (one[document] for one in given)
        dq, dk, dv = (one[document] for one in results)
        if softcap is not None:
            parts = softcap_backward(
                dy, q, k, v, out, statistics, scale=scale, softcap=softcap, window=window
            )
            of_query[document], of_key[document], of_value[document] = parts
            continue
        for queries, keys, mask in _blocks(q, window):
            found = _FLASH_BACKWARD(
                *_as_heads(dy[queries], q[queries], k[keys], v[keys], out[queries]),
                statistics[queries].t().unsqueeze(0), 0.0, mask is None, attn_mask=mask, scale=scale,
            )  # fmt: skip
            dq[queries], *of_keys = map(_as_tokens, found)
            before = queries.start - keys.start  # these keys have a gradient already, from their own block
            for buffer, part in zip((dk, dv), of_keys, strict=True):
                buffer[keys.start : queries.start] += part[:before]
                buffer[queries] = part[before:]
    return results


def _documents(offsets: Tensor) -> Iterator[slice]:
    ends: list[int] = offsets.tolist()
    return (slice(*pair) for pair in itertools.pairwise(ends) if pair[0] < pair[1])


def _sizes(offsets: Tensor, tokens: int) -> list[int]:
    """Of the documents; where these have no values, in a backward pass that is only planned, one."""
    if isinstance(offsets, FakeTensor):
        return [tokens]
    with unset_fake_temporarily():
        return [one.stop - one.start for one in _documents(offsets)]


def _blocks(query_SHD: Tensor, window: int | None) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """(queries, keys, mask) that together are one document's attention; a mask of None is the causal one.

    Under a window blocks of `window` queries, each with its own keys and those of the block before.
    """
    size = len(query_SHD)
    if window is None or size <= window:
        yield slice(0, size), slice(0, size), None
        return
    for start in range(0, size, window):
        queries = slice(start, min(start + window, size))
        keys = slice(max(0, start - window), queries.stop)
        places = torch.arange(keys.start, keys.stop)
        distance = torch.arange(queries.start, queries.stop).unsqueeze(1) - places
        mask = query_SHD.new_zeros(distance.shape)
        yield queries, keys, mask.masked_fill_((distance < 0) | (distance >= window), -torch.inf)


def _as_heads(*parts_SHD: Tensor) -> Iterator[Tensor]:
    return (one.transpose(0, 1).unsqueeze(0) for one in parts_SHD)


def _as_tokens(part_1HSD: Tensor) -> Tensor:
    return part_1HSD.squeeze(0).transpose(0, 1)


def _empty_results(query_THD: Tensor, value_TKD: Tensor) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = query_THD.shape
    dtype = torch.float64 if query_THD.dtype == torch.float64 else torch.float32
    return (
        query_THD.new_empty(tokens, heads, value_TKD.shape[-1]),
        query_THD.new_empty(tokens, heads, dtype=dtype),
    )


def _empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


@torch.library.register_fake("persianmind::document_attention", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
    return _empty_results(query, value)


@torch.library.register_fake("persianmind::document_attention_backward", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
    return _empty_gradients(query, key, value)


def held_inside(args: Sequence[Any], *, backward: bool) -> int:
    """Bytes that the operation, called with `args`, holds for a while beside its results."""
    query, key, value = args[1:4] if backward else args[:3]
    offsets, softcap = args[-4], args[-1]
    longest = max(_sizes(offsets, len(query)))
    if softcap is not None:
        return softcap_bytes(longest, query, key, backward=backward)
    tensors = (query, key, value) if backward else (query,)
    return int(longest * sum(one[0].numel() * one.element_size() for one in tensors))


# What torch's counter saw when these ran in the open: the matmuls of a soft-cap's softmax, nothing of the
# fused attention of the CPU, which it does not know.
@register_flop_formula(torch.ops.persianmind.document_attention, get_raw=True)
def _flops(
    query: Any, key: Any, value: Any, offsets: Any, scale: Any, window: Any, softcap: Any, **_: Any
) -> int:
    if softcap is None:
        return 0
    return sum(softcap_flops(size, query, value, window)[0] for size in _sizes(offsets, len(query)))


@register_flop_formula(torch.ops.persianmind.document_attention_backward, get_raw=True)
def _flops_backward(
    gradient: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    statistics: Any,
    offsets: Any,
    *settings: Any,
    **_: Any,
) -> int:
    _, window, softcap = settings
    if softcap is None:
        return 0
    return sum(softcap_flops(size, query, value, window)[1] for size in _sizes(offsets, len(query)))

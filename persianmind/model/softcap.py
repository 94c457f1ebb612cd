"""Attention with a soft-cap on its scores (Gemma 2, arXiv 2408.00118): softmax of cap * tanh(score / cap).

No fused kernel of torch has it. The softmax runs over blocks of queries, in fp32, and the backward
pass computes each block again from the log-sum-exp: nothing of size S x S is ever kept.

Shape legend: S tokens of a document, K key and value heads, G query heads per key head, Q queries of a block,
M keys that a block sees, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 128


def softcap_forward(
    query_SHD: Tensor,
    key_SKD: Tensor,
    value_SKD: Tensor,
    *,
    scale: float,
    softcap: float,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal attention within one document.

    Args:
        scale: of the scores, before the cap.
        window: how many tokens a query sees, itself among them; None: all before it.

    Returns:
        The output [S, H, D], and the log-sum-exp of the capped scores, fp32 [S, H].
    """
    query_KGSD, key_KSD, value_KSD = _by_head(query_SHD, key_SKD, value_SKD)
    out_KGSD = query_KGSD.new_empty(*query_KGSD.shape[:-1], value_KSD.shape[-1])
    log_norm_KGS = query_KGSD.new_empty(query_KGSD.shape[:-1], dtype=torch.float32)
    for queries, keys in _blocks(query_KGSD.shape[2], window):
        capped, _ = _scores(query_KGSD, key_KSD, queries, keys, scale, softcap, window)
        log_norm = torch.logsumexp(capped, dim=-1)
        softmax = torch.exp(capped - log_norm.unsqueeze(-1)).to(value_KSD.dtype)
        out_KGSD[:, :, queries] = softmax @ value_KSD[:, keys].unsqueeze(1)
        log_norm_KGS[:, :, queries] = log_norm
    return _by_token(out_KGSD), log_norm_KGS.flatten(0, 1).t()


def softcap_backward(
    gradient_SHD: Tensor,
    query_SHD: Tensor,
    key_SKD: Tensor,
    value_SKD: Tensor,
    out_SHD: Tensor,
    log_norm_SH: Tensor,
    *,
    scale: float,
    softcap: float,
    window: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from the output's and what `softcap_forward` was given and gave."""
    query_KGSD, key_KSD, value_KSD = _by_head(query_SHD, key_SKD, value_SKD)
    grad_KGSD, _, _ = _by_head(gradient_SHD, key_SKD, value_SKD)
    out_KGSD, _, _ = _by_head(out_SHD, key_SKD, value_SKD)
    log_norm_KGS = log_norm_SH.t().reshape(query_KGSD.shape[:-1])
    grad_query = torch.empty_like(query_KGSD)
    grad_key = torch.zeros_like(key_KSD, dtype=torch.float32)
    grad_value = torch.zeros_like(value_KSD, dtype=torch.float32)
    # sum_j P_ij dP_ij = dO_i . O_i (FlashAttention, arXiv 2205.14135, appendix B.2)
    dot_KGS = (grad_KGSD.float() * out_KGSD.float()).sum(-1)
    for queries, keys in _blocks(query_KGSD.shape[2], window):
        capped, tanh = _scores(query_KGSD, key_KSD, queries, keys, scale, softcap, window)
        softmax = torch.exp(capped - log_norm_KGS[:, :, queries].unsqueeze(-1))
        grad_out = grad_KGSD[:, :, queries].float()
        grad_value[:, keys] += torch.einsum("kgqm,kgqd->kmd", softmax, grad_out)
        grad_softmax = torch.einsum("kgqd,kmd->kgqm", grad_out, value_KSD[:, keys].float())
        grad_capped = softmax * (grad_softmax - dot_KGS[:, :, queries].unsqueeze(-1))
        grad_scores = grad_capped * (1 - tanh.square()) * scale
        grad_query[:, :, queries] = torch.einsum("kgqm,kmd->kgqd", grad_scores, key_KSD[:, keys].float()).to(
            grad_query.dtype
        )
        grad_key[:, keys] += torch.einsum("kgqm,kgqd->kmd", grad_scores, query_KGSD[:, :, queries].float())
    return _by_token(grad_query), grad_key.transpose(0, 1), grad_value.transpose(0, 1)


def softcap_flops(size: int, query_THD: Tensor, value_TKD: Tensor, window: int | None) -> tuple[int, int]:
    """(forward, backward) of one document of `size` tokens: two matmuls of scores, and five."""
    pairs = sum(
        (queries.stop - queries.start) * (keys.stop - keys.start) for queries, keys in _blocks(size, window)
    )
    product, of_values = (2 * pairs * query_THD.shape[1] * one.shape[-1] for one in (query_THD, value_TKD))
    return product + of_values, 3 * product + 2 * of_values


def softcap_bytes(size: int, query_THD: Tensor, key_TKD: Tensor, *, backward: bool) -> int:
    """What one document of `size` tokens holds beside its results: fp32 scores of a block of queries (as they
    are, scaled, tanh, capped, softmax; backward their gradients as well), and sums of gradients."""
    scores = (7 if backward else 5) * query_THD.shape[1] * min(BLOCK, size) * size
    return 4 * (scores + (2 * size * key_TKD[0].numel() if backward else 0))


def _by_head(query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[K, G, S, D], [K, S, D], [K, S, D]."""
    size, _, head_size = query_SHD.shape
    query_SKGD = query_SHD.reshape(size, key_SKD.shape[1], -1, head_size)
    return query_SKGD.permute(1, 2, 0, 3), key_SKD.transpose(0, 1), value_SKD.transpose(0, 1)


def _by_token(one_KGSD: Tensor) -> Tensor:
    return one_KGSD.permute(2, 0, 1, 3).flatten(1, 2)


def _blocks(length: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """(queries, the keys that any of them sees)."""
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        yield slice(start, stop), slice(0 if window is None else max(0, start - window + 1), stop)


def _scores(
    query_KGSD: Tensor,
    key_KSD: Tensor,
    queries: slice,
    keys: slice,
    scale: float,
    softcap: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """(capped scores, -inf where nothing is seen; tanh of the scores over the cap), fp32 [K, G, Q, M]."""
    scores = (query_KGSD[:, :, queries] @ key_KSD[:, keys].transpose(1, 2).unsqueeze(1)).float()
    tanh = torch.tanh(scores * (scale / softcap))
    device = scores.device
    distance = torch.arange(queries.start, queries.stop, device=device).unsqueeze(1)
    distance = distance - torch.arange(keys.start, keys.stop, device=device)
    seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return (tanh * softcap).masked_fill(~seen, -torch.inf), tanh

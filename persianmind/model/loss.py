"""Cross-entropy over a split vocabulary, in chunks, so that no (tokens x vocabulary) tensor is ever made.

Shape legend: N target tokens, C tokens of a chunk, D hidden size, V base vocabulary, A new embeddings.

The gradient of the summed loss is known in closed form (softmax minus one-hot), so it is computed chunk
by chunk during the forward pass and only scaled in the backward pass. Matmuls run in the model's dtype,
sums in fp32, and so do a family's bias, scale and soft-cap of the logits. A frozen table gets no weight
gradient, and costs none.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from persianmind.model.families import LogitTransform

IGNORED = -100
COLUMNS = 64  # logits are allocated to a multiple of it: GPUs take slow kernels for odd leading dimensions
PLAIN_LOGITS = LogitTransform()


class LossFunction(Protocol):
    """The summed loss of a batch from its hidden states; see `summed_cross_entropy`."""

    def __call__(
        self,
        hidden: Tensor,
        labels: Tensor,
        base_VD: Tensor,
        new_AD: Tensor | None,
        *,
        chunk_tokens: int,
        targets_N: Tensor | None,
        bias: Tensor | None,
        transform: LogitTransform,
        target_losses_N: Tensor | None = None,
    ) -> Tensor: ...


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        labels_N: Tensor,
        base_VD: Tensor,
        new_AD: Tensor | None,
        bias: Tensor | None,
        transform: LogitTransform,
        chunk: int,
        losses_N: Tensor | None,
    ) -> Tensor:
        needs_hidden, _, needs_base, needs_new = ctx.needs_input_grad[:4]
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_base_VD = torch.zeros_like(base_VD, dtype=torch.float32) if needs_base else None
        grad_new_AD = None
        if needs_new and new_AD is not None:
            grad_new_AD = torch.zeros_like(new_AD, dtype=torch.float32)
        base_vocab = base_VD.shape[0]
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        for start in range(0, hidden_ND.shape[0], chunk):
            hidden_CD = hidden_ND[start : start + chunk]
            labels_C = labels_N[start : start + chunk]
            products = _products(hidden_CD, base_VD, new_AD)
            losses_C = None if losses_N is None else losses_N[start : start + chunk]
            # No name for what it returns: that would hold the memory of this chunk through the next.
            grad_logits = _as_dtype(
                _chunk_loss(products, labels_C, bias, transform, total, losses_C), hidden_ND.dtype
            )
            if not (needs_hidden or needs_base or needs_new):
                continue
            grad_logits_base = grad_logits[:, :base_vocab]
            if grad_hidden_ND is not None:
                grad_CD = grad_logits_base @ base_VD
                if new_AD is not None:
                    grad_CD += grad_logits[:, base_vocab:] @ new_AD
                grad_hidden_ND[start : start + chunk] = grad_CD
            if grad_base_VD is not None:
                grad_base_VD += (grad_logits_base.T @ hidden_CD).float()
            if grad_new_AD is not None:
                grad_new_AD += (grad_logits[:, base_vocab:].T @ hidden_CD).float()
        ctx.save_for_backward(grad_hidden_ND, grad_base_VD, grad_new_AD)
        ctx.dtypes = (base_VD.dtype, None if new_AD is None else new_AD.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> Any:
        grad_hidden_ND, grad_base_VD, grad_new_AD = ctx.saved_tensors
        base_dtype, new_dtype = ctx.dtypes
        # Scaled in fp32: the scale itself (1 / target tokens) rounded to bf16 would bias every gradient.
        hidden = None
        if grad_hidden_ND is not None:
            hidden = (grad_hidden_ND.float() * grad_total).to(grad_hidden_ND.dtype)
        base = None if grad_base_VD is None else (grad_base_VD * grad_total).to(base_dtype)
        new = None if grad_new_AD is None else (grad_new_AD * grad_total).to(new_dtype)
        return hidden, None, base, new, None, None, None, None


def _products(hidden_CD: Tensor, base_VD: Tensor, new_AD: Tensor | None) -> Tensor:
    """Hidden states x table, [C, V + A], in fp32 from the model's dtype."""
    base_vocab = base_VD.shape[0]
    added = 0 if new_AD is None else new_AD.shape[0]
    # Both matmuls go into one tensor: joining two would hold the chunk's logits twice.
    products = _empty_logits(hidden_CD, base_vocab + added, hidden_CD.dtype)
    torch.mm(hidden_CD, base_VD.T, out=products[:, :base_vocab])
    if new_AD is not None:
        torch.mm(hidden_CD, new_AD.T, out=products[:, base_vocab:])
    return _as_dtype(products, torch.float32)


def _empty_logits(like: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised, [C, columns] with as many rows as `like`, a slice of what is allocated."""
    allocated = -(-columns // COLUMNS) * COLUMNS
    return like.new_empty(len(like), allocated, dtype=dtype)[:, :columns]


def _as_dtype(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """The same tensor where it has that dtype; a copy allocated alike where not."""
    if logits.dtype == dtype:
        return logits
    return _empty_logits(logits, logits.shape[1], dtype).copy_(logits)


def _chunk_loss(
    products: Tensor,
    labels_C: Tensor,
    bias: Tensor | None,
    transform: LogitTransform,
    total: Tensor,
    losses_C: Tensor | None,
) -> Tensor:
    """Adds the chunk's summed loss to `total` and puts that of each target into `losses_C`; returns d loss /
    d products, fp32 [C, V + A], in the memory of `products`."""
    logits, slope = products, None
    if bias is not None:
        logits.add_(bias)
    if transform.scale != 1.0:
        logits.mul_(transform.scale)
    if transform.softcap is not None:
        tanh = logits.div_(transform.softcap).tanh_()
        slope = 1 - tanh.square()
        logits = tanh.mul_(transform.softcap)
    log_norm_C = torch.logsumexp(logits, dim=-1)
    picked_C = logits.gather(1, labels_C.unsqueeze(1)).squeeze(1)
    total += (log_norm_C - picked_C).sum()
    if losses_C is not None:
        torch.sub(log_norm_C, picked_C, out=losses_C)
    gradient = logits.sub_(log_norm_C.unsqueeze(1)).exp_()
    gradient.scatter_add_(1, labels_C.unsqueeze(1), gradient.new_full((len(labels_C), 1), -1.0))
    if slope is not None:
        gradient.mul_(slope)
    return gradient.mul_(transform.scale) if transform.scale != 1.0 else gradient


def summed_cross_entropy(
    hidden: Tensor,
    labels: Tensor,
    base_VD: Tensor,
    new_AD: Tensor | None,
    *,
    chunk_tokens: int = 512,
    targets_N: Tensor | None = None,
    bias: Tensor | None = None,
    transform: LogitTransform = PLAIN_LOGITS,
    target_losses_N: Tensor | None = None,
) -> Tensor:
    """Summed (not averaged) negative log-likelihood in nats of the labelled positions, fp32 scalar.

    hidden: [..., D]; labels: [...] ids already shifted (the id that follows), -100 where nothing is asked.
    Positions with label -100 are dropped before the matmul; targets_N: the flat places of the others, looked
    for here where it is not given. `new_AD=None` scores with the base vocabulary alone. target_losses_N:
    fp32, filled with the loss of each labelled position, without a gradient.
    """
    labels_flat = labels.reshape(-1)
    if targets_N is None:
        targets_N = (labels_flat != IGNORED).nonzero().squeeze(1)
    hidden_ND = hidden.reshape(-1, hidden.shape[-1]).index_select(0, targets_N)
    labels_N = labels_flat.index_select(0, targets_N)
    total: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, labels_N, base_VD, new_AD, bias, transform, chunk_tokens, target_losses_N
    )
    return total

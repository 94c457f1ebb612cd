"""First values of the new embeddings, from the base table and the base tokenizer's pieces of each new token.

`subword-mean` is the default: a new token starts where its old spelling was, on average. `mean` puts all
at the base mean; `normal` draws from the mean of the base embeddings and covariance (Hewitt, "Initializing
New Word Embeddings for Pretrained Language Models", 2021); `random` is N(0, 0.02), the naive way, for
comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Method = Literal["subword-mean", "mean", "normal", "random"]


def initial_embeddings(
    base_VD: Tensor, pieces: Sequence[Sequence[int]], method: Method, generator: torch.Generator
) -> Tensor:
    """[A, D] embeddings in the base table's dtype; `pieces[a]` are the base ids that spelled new token a.

    Sums are in fp32. A new token without pieces (a special token such as [PAD]) gets the base mean.
    Apply it to the input and the output table each with its own base table.
    """
    added = len(pieces)
    if base_VD.is_meta:  # an estimate: only the shape is asked for
        return base_VD.new_empty(added, base_VD.shape[1])
    base = base_VD.detach().cpu().float()  # always there: a GPU rounds otherwise, and draws other noise
    mean_D = base.mean(dim=0)
    if method == "subword-mean":
        embeddings = torch.stack([base[list(ids)].mean(dim=0) if len(ids) else mean_D for ids in pieces])
    elif method == "mean":
        embeddings = mean_D.expand(added, -1).clone()
    elif method == "normal":
        embeddings = _normal_like(base, mean_D, added, generator)
    else:
        embeddings = torch.randn(added, base.shape[1], generator=generator) * 0.02
    return embeddings.to(base_VD)


def _normal_like(base_VD: Tensor, mean_D: Tensor, added: int, generator: torch.Generator) -> Tensor:
    """Draws from N(mean, covariance) of the base embeddings; eigenvalues below zero by rounding are
    clipped."""
    centred_VD = base_VD - mean_D
    covariance_DD = centred_VD.T @ centred_VD / max(1, base_VD.shape[0] - 1)
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD.double())
    root_DD = vectors_DD * values_D.clamp(min=0).sqrt()
    noise_AD = torch.randn(added, base_VD.shape[1], generator=generator, dtype=torch.float64)
    new_AD: Tensor = mean_D + (noise_AD @ root_DD.T).float()
    return new_AD

"""Split vocabulary tables: the base embeddings stay as they are in one tensor, new ones live in a second.

Shape legend: B batch, L sequence length, D hidden size, V base vocabulary, A new embeddings, N tokens.

Ids below V index the base embeddings, ids from V on the new ones. Nothing ever copies or concatenates a whole
table while training; export folds both into an ordinary one (`SplitTable.folded`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SplitTable(nn.Module):
    """A vocabulary table in two parts: `base_VD`, and `new_AD` (None when nothing was added)."""

    def __init__(self, base_VD: Tensor, new_AD: Tensor | None, *, train_base: bool = False) -> None:
        super().__init__()
        self.base_VD = nn.Parameter(base_VD, requires_grad=train_base)
        self.new_AD: nn.Parameter | None = None
        if new_AD is not None and len(new_AD):
            self.new_AD = nn.Parameter(new_AD, requires_grad=True)

    @property
    def base_vocab(self) -> int:
        """V: the first new id."""
        return self.base_VD.shape[0]

    @property
    def added_vocab(self) -> int:
        """A: how many embeddings were added."""
        return 0 if self.new_AD is None else self.new_AD.shape[0]

    def folded(self) -> Tensor:
        """The ordinary table, [V + A, D]. A copy, for export only."""
        if self.new_AD is None:
            return self.base_VD.detach().clone()
        return torch.cat([self.base_VD.detach(), self.new_AD.detach()])


class SplitEmbedding(nn.Module):
    """Looks ids up in a `SplitTable`. `weight` is the base part, for code that asks a dtype or device.

    scale: factor on every embedding, rounded to the table's dtype as transformers does it.
    """

    def __init__(self, table: SplitTable, scale: float = 1.0) -> None:
        super().__init__()
        self.table = table
        self.scale = float(torch.tensor(scale, dtype=table.base_VD.dtype, device="cpu"))

    @property
    def weight(self) -> Tensor:
        """The base embeddings [V, D]."""
        return self.table.base_VD

    def forward(self, ids_BL: Tensor) -> Tensor:
        """[B, L] ids -> [B, L, D]. The lookup of the other part is masked, so it gets no gradient."""
        embeddings_BLD = self._look_up(ids_BL)
        return embeddings_BLD if self.scale == 1.0 else embeddings_BLD * self.scale

    def _look_up(self, ids_BL: Tensor) -> Tensor:
        table = self.table
        base_vocab = table.base_vocab
        if table.new_AD is None:
            return functional.embedding(ids_BL, table.base_VD)
        is_new_BL = ids_BL >= base_vocab
        from_base_BLD = functional.embedding(ids_BL.clamp(max=base_vocab - 1), table.base_VD)
        from_new_BLD = functional.embedding((ids_BL - base_vocab).clamp(min=0), table.new_AD)
        return torch.where(is_new_BL.unsqueeze(-1), from_new_BLD, from_base_BLD)


class SplitHead(nn.Module):
    """The output projection over a `SplitTable`. Training uses the chunked loss instead of this.

    bias: of the logits, [V + A], frozen; None: the base has none.
    """

    def __init__(self, table: SplitTable, bias: Tensor | None = None) -> None:
        super().__init__()
        self.table = table
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The base embeddings [V, D]."""
        return self.table.base_VD

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> logits [..., V + A]."""
        logits = functional.linear(hidden, self.table.base_VD)
        if self.table.new_AD is not None:
            logits = torch.cat([logits, functional.linear(hidden, self.table.new_AD)], dim=-1)
        return logits if self.bias is None else logits + self.bias


def new_bias(base_bias_V: Tensor) -> Tensor:
    """The bias of new tokens: the mean of the base's. With zeros a constant that the base adds to all logits,
    which changes nothing there, would favour one part of the vocabulary. Summed in fp32 on the host."""
    if base_bias_V.is_meta:  # an estimate: only the shape is asked for
        return base_bias_V.new_empty(())
    return base_bias_V.detach().cpu().float().mean().to(base_bias_V)

"""The merged model, a weight at a time: adapters added to the base, new embeddings below its tables.

Deltas are added in fp32 to the base as it lies on disk, never to a quantised module, and cast once. The host
holds one weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.errors import BaseModelError
from persianmind.model.export.names import DiskNames, disk_names
from persianmind.model.export.source import FolderTensors
from persianmind.model.export.trained import LoraFactors, TrainedWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MergedTensors:
    """A `TensorSource` of base plus trained weights, named as in the base's files.

    Args:
        base: the folder of the base.
        trained: what was trained over it.
        dtype: of every weight.
        pad_vocab_to_multiple: rows are added at the end of the tables up to this multiple.
        adapter_scale: factor on every adapter's delta; new embeddings are as they were trained.

    Raises:
        BaseModelError: a trained weight does not lie in the base's files as a weight of its own.
    """

    def __init__(
        self,
        base: Path,
        trained: TrainedWeights,
        *,
        dtype: torch.dtype,
        pad_vocab_to_multiple: int = 1,
        adapter_scale: float = 1.0,
    ) -> None:
        self._base = FolderTensors(base)
        self._trained, self.dtype, self._scale = trained, dtype, adapter_scale
        self._multiple = pad_vocab_to_multiple
        in_files = self._base.shapes()
        names = disk_names(base, in_files)
        self._check(base, names)
        self._parameter = {on_disk: parameter for parameter, on_disk in names.on_disk.items()}
        self._table_of = _tables(names)
        head = names.on_disk.get(f"{names.head}.weight")
        self._names = [name for name in in_files if not (names.tied and name == head)]
        self.tied = names.tied

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        in_files = self._base.shapes()
        return {
            name: (self.vocab_size, *in_files[name][1:]) if self._is_table(name) else in_files[name]
            for name in self._names
        }

    def load(self, name: str) -> Tensor:
        value = self._base.load(name)
        if self._is_table(name):
            return self._table(name, value)
        factors = self._trained.lora(self._parameter.get(name, ""))
        if factors is not None:
            value = merge(value, factors, self._scale)
        return value.to(self.dtype) if value.is_floating_point() else value

    @property
    def vocab_size(self) -> int:
        """Ids of the exported model, padding included."""
        size = self._trained.base_vocab + self.added_vocab
        return size + -size % self._multiple

    @property
    def added_vocab(self) -> int:
        """How many embeddings were added to the base's."""
        tables = (self._trained.table(module)[1] for module in self._table_of.values())
        return next((len(new_AD) for new_AD in tables if new_AD is not None), 0)

    def _is_table(self, name: str) -> bool:
        return self._parameter.get(name, "") in self._table_of

    def _table(self, name: str, value: Tensor) -> Tensor:
        """Base embeddings, new ones, padding; of a bias of the head (1-D) all that is new gets the mean."""
        trained_VD, new_AD = self._trained.table(self._table_of[self._parameter[name]])
        from persianmind.model.tables import new_bias

        base_vocab = self._trained.base_vocab
        table = value.new_zeros((self.vocab_size, *value.shape[1:]), dtype=self.dtype)
        if value.dim() == 1:
            table[:base_vocab] = value[:base_vocab]
            table[base_vocab:] = new_bias(value[:base_vocab])
            return table
        table[:base_vocab] = value[:base_vocab] if trained_VD is None else trained_VD
        used = base_vocab + self.added_vocab
        if new_AD is not None:
            table[base_vocab:used] = new_AD
        if used < self.vocab_size:
            # The mean of all rows is never the likeliest: some real token beats an average direction.
            table[used:] = _mean_row(table[:used])
        return table

    def _check(self, base: Path, names: DiskNames) -> None:
        wanted = {*self._trained.adapted_weights(), f"{names.embedding}.weight"}
        if missing := sorted(wanted - names.on_disk.keys()):
            raise BaseModelError(
                f"base {base}: {missing[0]} was trained, and the base's files hold it in another form; "
                "begin another --output with adapter.targets that lie in them as they are"
            )


def _mean_row(table_VD: Tensor, block: int = 4096) -> Tensor:
    """The mean of all rows, [D], summed in fp32 by blocks: a whole fp32 copy would be twice the table."""
    import torch

    sums_BD = torch.stack([part_VD.float().sum(dim=0) for part_VD in torch.split(table_VD, block)])
    return sums_BD.sum(dim=0) / len(table_VD)


def merge(weight_OI: Tensor, factors: LoraFactors, adapter_scale: float = 1.0) -> Tensor:
    """W + delta in fp32; for DoRA (arXiv 2402.09353, eq. 5) magnitude * (W + delta) / row norm of it."""
    import torch

    merged_OI = weight_OI.to(torch.float32, copy=True)
    merged_OI.addmm_(factors.B_OR.float(), factors.A_RI.float(), alpha=factors.scale * adapter_scale)
    if factors.magnitude_O is not None:
        merged_OI *= (factors.magnitude_O.float() / merged_OI.norm(dim=1)).unsqueeze(1)
    return merged_OI


def _tables(names: DiskNames) -> dict[str, str]:
    """Parameter -> module whose split table it is; tied tables are one, and the embedding's."""
    head = names.embedding if names.tied else names.head
    return {
        f"{names.embedding}.weight": names.embedding,
        f"{names.head}.weight": head,
        f"{names.head}.bias": head,
    }

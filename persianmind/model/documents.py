"""Packed batches as the model takes them: tensors on its device, and what the host knows of the documents.

Where documents begin and which positions have targets is read off the arrays here, on the host: read off
tensors, each would make the host wait for the GPU at every micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianmind.model.loss import IGNORED

OFFSETS_PER_SEQUENCE = 128
_TENSORS = ("input_ids", "position_ids", "labels", "sample_keys", "source_ids")


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """The documents of a micro-batch, its B sequences of L tokens seen as one run of B x L.

    offsets: int32 on the device, where each document begins, then B x L as often as it takes to reach a
    multiple of 128 per sequence plus one (empty documents): one shape, so that nothing is compiled anew.
    host_offsets: the same on the host.
    lengths: of each document, the padding of a sequence being one as well; they add up to B x L.
    seq_len: L, no document is longer.
    """

    offsets: Tensor
    host_offsets: Tensor
    lengths: tuple[int, ...]
    seq_len: int


def documents_of(position_ids: NDArray[np.int64], device: torch.device) -> Documents:
    """position_ids: [B, L], restarting at 0 with every document."""
    batch, seq_len = position_ids.shape
    restarts = position_ids == 0
    restarts[:, 0] = True  # a sequence may begin within a document, never within that of another sequence
    starts = np.flatnonzero(restarts)
    unit = OFFSETS_PER_SEQUENCE * batch
    offsets = np.full(-(-len(starts) // unit) * unit + 1, batch * seq_len, dtype=np.int32)
    offsets[: len(starts)] = starts
    lengths = np.diff(np.append(starts, batch * seq_len))
    return Documents(to_device(offsets, device), torch.from_numpy(offsets), tuple(lengths.tolist()), seq_len)


def model_inputs(batch: Mapping[str, NDArray[np.int64]], device: torch.device) -> dict[str, Any]:
    """The arguments of `AdaptedModel.forward` for `input_ids`, `position_ids` and `labels`, each [B, L], and
    `sample_keys` and `source_ids` [B] where there are some."""
    targets_N = np.flatnonzero(batch["labels"].reshape(-1) != IGNORED)
    return {
        **{name: to_device(batch[name], device) for name in _TENSORS if name in batch},
        "documents": documents_of(batch["position_ids"], device),
        "targets_N": to_device(targets_N, device),
    }


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of the array; through pinned memory to a GPU, which the host then need not wait for."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

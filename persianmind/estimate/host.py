"""Host memory of one machine through a run: loading, training, export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from persianmind.estimate.assumptions import BUILDER, PROCESS
from persianmind.estimate.disk import id_bytes
from persianmind.estimate.flops import weight_count
from persianmind.estimate.memory import OPTIMIZER_BYTES, WEIGHT_BYTES
from persianmind.estimate.partitions import FlatGroup
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel

FP32 = 4
# A shard is held as the packer's sequences, as one array and as the bytes of its file.
SHARD_COPIES = 3


@dataclass(frozen=True, slots=True)
class HostBytes:
    """Of all ranks of one machine together; memory-mapped files, which the system drops as it likes, are not
    counted.

    loading: every rank takes the base tensor by tensor onto its GPU. training: snapshots of a checkpoint, and
    the process that builds data beside. export: rank 0 merges a weight at a time, the others wait.
    """

    loading: int
    training: int
    export: int

    @property
    def peak(self) -> int:
        """The most of the three."""
        return max(self.loading, self.training, self.export)


def host_bytes(
    recipe: Recipe, model: AdaptedModel, groups: Sequence[FlatGroup], ranks: int, vocab_size: int
) -> HostBytes:
    """For `ranks` ranks on one machine.

    Args:
        model: on the meta device.
        groups: its trained weights over the ranks.
        vocab_size: of the run's tokenizer.
    """
    processes = ranks * int(PROCESS.value)
    largest = max(weight_count(value) for value in model.parameters())
    itemsize = WEIGHT_BYTES[recipe.train.precision]
    state = ranks * sum(group.partition for group in groups) * OPTIMIZER_BYTES
    trained = sum(sum(group.sizes) for group in groups) * itemsize  # rank 0's file alone has the weights
    shard = recipe.data.sequences_per_shard * recipe.longest_seq_len * id_bytes(vocab_size)
    merged = 2 * FP32 * largest + trained if recipe.export.enabled else 0
    return HostBytes(
        # As it lies in the file, and in the run's precision.
        loading=processes + ranks * largest * (2 + itemsize),
        training=processes + state + trained + int(BUILDER.value) + SHARD_COPIES * shard,
        export=processes + merged,
    )

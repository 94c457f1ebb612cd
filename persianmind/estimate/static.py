"""Bytes of the trained state on one rank, kind by kind, and what the parts of a step hold beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persianmind.engine.groups import parameter_groups
from persianmind.estimate.memory import MASTER_BYTES, MOMENT_BYTES
from persianmind.estimate.partitions import (
    FlatGroup,
    ReductionPeak,
    ReductionSettings,
    reduction_peak,
)
from persianmind.estimate.shapes import parameters_by_kind, tensor_bytes

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel

SUM_BYTES = 4  # of a gradient summed over micro-batches
NORM_BYTES = 8  # DeepSpeed takes the norm of each gradient in float64
# Temporaries of AdamW, fp32 per weight of the largest group's partition: torch's loops over a list of tensors
# (CPU) hold the root of the second moment, the fused kernel (GPUs) nothing.
ADAM_TEMPORARIES = {"cpu": 1, "gpu": 0}


@dataclass(frozen=True, slots=True)
class ResidentBytes:
    """What a rank holds through the whole of training."""

    base: int
    new_embeddings: int
    adapters: int
    flat_padding: int
    masters: int
    moments: int
    buffers: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class StepBytes:
    """What the exchange and the update of one rank hold beside `ResidentBytes`, at their highest.

    fp32_accumulators: sums of gradients; none where gradients are fp32 themselves, or one micro-batch makes a
    step (then they come with the exchange). update: this rank's gradients with the temporaries of norm,
    clipping and AdamW.
    """

    fp32_accumulators: int
    reduction: Mapping[str, int]
    gradient_partition: int
    update: int


def flat_groups(model: AdaptedModel, ranks: int) -> list[FlatGroup]:
    """The trained weights as DeepSpeed lays them out."""
    return [
        FlatGroup([value.numel() for value in group["params"]], ranks)
        for group in parameter_groups(model, 0.0)
    ]


def resident_bytes(model: AdaptedModel, ranks: int) -> ResidentBytes:
    """Of one rank; every rank holds the same.

    Args:
        model: on any device, the meta device as well.
        ranks: that share masters and moments.
    """
    kinds = dict.fromkeys(("base", "added", "adapter"), 0)
    for kind, value in parameters_by_kind(model):
        kinds[kind] += tensor_bytes(value)
    groups = flat_groups(model, ranks)
    partition = sum(group.partition for group in groups)
    padding = sum(group.padded - sum(group.sizes) for group in groups)
    return ResidentBytes(
        base=kinds["base"],
        new_embeddings=kinds["added"],
        adapters=kinds["adapter"],
        flat_padding=padding * _trained_itemsize(model),
        masters=partition * MASTER_BYTES,
        moments=partition * MOMENT_BYTES,
        buffers=sum(value.numel() * value.element_size() for value in model.buffers()),
    )


def step_bytes(
    model: AdaptedModel, engine_config: Mapping[str, Any], ranks: int, *, device: str = "gpu"
) -> StepBytes:
    """Of the rank that holds most.

    Args:
        engine_config: DeepSpeed's JSON as it is given to the engine.
        ranks: how many take part.
        device: "gpu" or "cpu", whose AdamW differs.
    """
    groups, itemsize = flat_groups(model, ranks), _trained_itemsize(model)
    trained = sum(sum(group.sizes) for group in groups)
    zero = engine_config["zero_optimization"]
    settings = ReductionSettings(
        bucket=int(zero["reduce_bucket_size"]),
        buffers=2 if zero["overlap_comm"] else 1,
        contiguous=bool(zero["contiguous_gradients"]),
    )
    reductions = [reduction_peak(groups, rank, settings) for rank in range(ranks)]
    reduction = max(reductions, key=lambda one: one.total)
    partitions = [_own_gradients(groups, rank) * itemsize for rank in range(ranks)]
    updates = [_update_temporaries(groups, rank, itemsize, device) for rank in range(ranks)]
    return StepBytes(
        # In fp32 the sums are the gradients themselves: the first micro-batch's, the others are added to it.
        fp32_accumulators=trained * SUM_BYTES,
        reduction=_reduction_bytes(reduction, itemsize),
        gradient_partition=max(partitions),
        update=max(own + more for own, more in zip(partitions, updates, strict=True)),
    )


def _reduction_bytes(peak: ReductionPeak, itemsize: int) -> dict[str, int]:
    # fp32 gradients are the sums, which are counted; a bucket takes none of them away.
    gradients = 0 if itemsize == SUM_BYTES else peak.gradients * itemsize
    return {
        "gradients": gradients,
        "reduce_buckets": peak.buckets * itemsize,
        "reduce_copies": peak.copies * itemsize,
        "gradient_partition": peak.partition * itemsize,
    }


def _own_gradients(groups: Sequence[FlatGroup], rank: int) -> int:
    """Whole gradients of all parameters that the rank updates a piece of."""
    return sum(size for group in groups for size, _ in group.owned(rank))


def _update_temporaries(groups: Sequence[FlatGroup], rank: int, itemsize: int, device: str) -> int:
    """The largest of: one gradient in float64 (its norm); a group's partition joined and in fp32; the same
    with AdamW's temporaries."""
    found = [0]
    for group in groups:
        pieces = [weights for _, weights in group.owned(rank)]
        found += [weights * NORM_BYTES for weights in pieces]
        padded = sum(pieces) < group.partition
        joined = group.partition * itemsize if len(pieces) + padded > 1 else 0
        single = group.partition * SUM_BYTES if itemsize != SUM_BYTES else joined
        adam = group.partition * SUM_BYTES * ADAM_TEMPORARIES[device]
        found += [joined + single if itemsize != SUM_BYTES else joined, single + adam]
    return max(found)


def _trained_itemsize(model: AdaptedModel) -> int:
    return next(iter(model.trained().values())).element_size()

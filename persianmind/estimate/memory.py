"""Bytes of a run's state: on a rank's device, and on disk in a checkpoint."""

from __future__ import annotations

MASTER_BYTES = 4  # fp32 master of a trained weight
MOMENT_BYTES = 4 + 4  # Adam's two, fp32
OPTIMIZER_BYTES = MASTER_BYTES + MOMENT_BYTES  # per trained weight; ZeRO-2 shards it over the ranks
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "auto": 2}  # `auto` is planned as what a GPU does


def weight_bytes_per_rank(parameters: int, precision: str) -> int:
    """Every rank holds all weights, in the precision it multiplies them in; 4-bit bases are not reckoned."""
    return parameters * WEIGHT_BYTES[precision]


def gradient_and_optimizer_bytes_per_rank(trained: int, precision: str, world_size: int) -> int:
    """Gradients of the trained weights, and this rank's shard of masters and moments (rounded up).

    Args:
        trained: number of trained weights.
    """
    return trained * WEIGHT_BYTES[precision] + -(-trained * OPTIMIZER_BYTES // world_size)


def checkpoint_bytes(trained: int, precision: str) -> int:
    """What a checkpoint holds, over all ranks: masters, moments, and the copy in working precision."""
    return trained * (OPTIMIZER_BYTES + WEIGHT_BYTES[precision])

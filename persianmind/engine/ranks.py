"""Who this process is among the ranks, and how ranks exchange values."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

# Collectives give up this long after the watchdog (train/callbacks/watchdog.py), which says more.
COLLECTIVE_SLACK_S = 300.0


def collective_timeout_s(hang_timeout_s: float) -> float:
    """Seconds after which a collective gives up, for `train.hang_timeout_s`."""
    return hang_timeout_s + COLLECTIVE_SLACK_S


def meeting_place() -> str:
    """Where the ranks of this launch meet, "host:port": the same on all of them, and on no others that run at
    the same time."""
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


@dataclass(frozen=True, slots=True)
class Ranks:
    """rank of world_size; local_rank of local_size on this node."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int

    @property
    def node(self) -> str:
        """This node's name, for the energy ledger; hosts that share one set $PERSIANMIND_NODE."""
        return os.environ.get("PERSIANMIND_NODE") or platform.node() or "node"


def ranks_from_environment() -> Ranks:
    """Reads what the DeepSpeed launcher, torchrun or Ray Train set; one process alone is rank 0 of 1."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_size = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or str(world_size)
    return Ranks(
        rank=int(os.environ.get("RANK", "0")),
        world_size=world_size,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_size=int(local_size),
    )


class TorchGroup:
    """The checkpoint package's `RankGroup` over torch.distributed; `own` makes a process group of its own.

    timeout_s: of the own group's collectives, the seconds one rank may keep the others waiting; torch's
    default (half an hour) where it is None.
    """

    def __init__(self, ranks: Ranks, *, own: bool = False, timeout_s: float | None = None) -> None:
        import torch.distributed

        self.rank = ranks.rank
        self.world_size = ranks.world_size
        # Objects travel over gloo even where gradients travel over NCCL.
        timeout = None if timeout_s is None else timedelta(seconds=timeout_s)
        self._group = torch.distributed.new_group(backend="gloo", timeout=timeout) if own else None

    def all_gather(self, value: Any) -> list[Any]:
        """One JSON-able value per rank, in rank order; also a barrier."""
        import torch.distributed

        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

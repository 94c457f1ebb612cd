"""What a rank says of itself when the ranks come together, and whether all are set up alike."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from persianmind.common.errors import MachineError
from persianmind.engine.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Presence:
    """What a rank says of itself.

    device: "GPU 0 (NVIDIA GeForce RTX 3090)", or "CPU". node_devices: those of its node, by local rank, so
    that a neighbour which never comes has a name. agreed: what must be the same on all ranks, by recipe key.
    settings: "NAME=value" -> why, what was set in its environment.
    """

    rank: int
    node: str
    pid: int
    local_rank: int
    local_size: int
    device: str
    node_devices: list[str] = field(default_factory=list)
    agreed: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"rank {self.rank} (pid {self.pid}, {self.device} on {self.node})"


def presence(
    ranks: Ranks,
    devices: list[str],
    agreed: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Presence:
    """This rank's.

    devices: the GPUs it sees, empty on the CPU; where it sees one alone (Ray), that is its own and those of
    its neighbours are not known.
    """
    names = devices or ["CPU"] * ranks.local_size
    own = names[ranks.local_rank] if ranks.local_rank < len(names) else names[0]
    return Presence(
        rank=ranks.rank,
        node=ranks.node,
        pid=os.getpid(),
        local_rank=ranks.local_rank,
        local_size=ranks.local_size,
        device=own,
        node_devices=names if len(names) >= ranks.local_size else [],
        agreed=dict(agreed or {}),
        settings=dict(settings or {}),
    )


def check_agreement(found: Sequence[Presence]) -> None:
    """Holds what every rank decided on its own machine against rank 0's.

    Raises:
        MachineError: two ranks differ; both are named. All ranks raise it together.
    """
    first = found[0]
    for one in found[1:]:
        for key, value in first.agreed.items():
            if (other := one.agreed.get(key)) != value:
                error = MachineError(
                    f"{key} is {value} on {first} and {other} on {one}: give it a value for all, e.g. "
                    "train.precision=fp32"
                )
                error.by_all_ranks = True
                raise error

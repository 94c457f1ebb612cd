"""What the driver and its workers tell each other beside Ray Train: a stop that was asked for, and attempts.

An actor and not a file: network file systems may show a new file to other machines only a minute later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray


class Board:
    """Lives on the driver's machine, which no worker's death takes away."""

    def __init__(self) -> None:
        self._stop = False
        self._attempts: list[dict[str, Any]] = []

    def ask_stop(self) -> None:
        """Every worker saves after its current step and ends."""
        self._stop = True

    def stop_asked(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop

    def begin(self, world_size: int, nodes: list[str]) -> int:
        """Rank 0 announces an attempt; returns how many there were before it."""
        self._attempts.append({"world_size": world_size, "nodes": nodes, "time_s": time.time()})
        return len(self._attempts) - 1

    def attempts(self) -> list[dict[str, Any]]:
        """Every attempt of this job: its number of ranks, its nodes, when it began."""
        return self._attempts


def start_board() -> Any:
    """The actor, pinned to the machine of this process."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()


def stop_predicate(board: Any) -> Callable[[], bool]:
    """For the training loop: asks the board at each step (about a millisecond)."""

    def asked() -> bool:
        try:
            return bool(ray.get(board.stop_asked.remote(), timeout=5))
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return False  # the driver is gone or slow; Ray ends this worker if it is gone

    return asked

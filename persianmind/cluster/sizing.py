"""How many workers, of what size, on which machines: arithmetic alone, no Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from persianmind.common.errors import ClusterError
from persianmind.recipe import Recipe

# More do not help a worker whose GPU does the work, and keep a small box from scheduling.
MAX_CPUS_PER_WORKER = 8


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine of the cluster offers to Ray."""

    address: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Scale:
    """The workers of a run: at most `workers`, at least `min_workers`; one GPU each, or none."""

    workers: int
    min_workers: int
    gpu: bool


def resolve_scale(
    recipe: Recipe,
    *,
    nodes: int | None,
    gpus_per_node: int | None,
    gpu_workers: int | None,
    cpu_workers: int | None,
    min_workers: int | None,
) -> Scale:
    """What the flags ask for.

    Raises:
        ClusterError: they contradict each other, or a worker would have no sequence in a step.
    """
    per_node = None if gpus_per_node is None else (nodes or 1) * gpus_per_node
    asked = {"--cpu-workers": cpu_workers, "--gpus-per-node": per_node, "--gpu-workers": gpu_workers}
    given = {flag: count for flag, count in asked.items() if count is not None}
    if not given:
        raise ClusterError(
            "say what to train on: --nodes N --gpus-per-node M, --gpu-workers N, or --cpu-workers N"
        )
    if len(given) > 1:
        raise ClusterError(f"{' and '.join(given)} exclude each other; give one of them")
    if gpu_workers is not None and nodes is not None:
        raise ClusterError("--gpu-workers counts the GPUs of all machines together; leave --nodes out")
    (workers,) = given.values()
    smallest = workers if min_workers is None else min_workers
    if workers < 1 or smallest < 1:
        raise ClusterError("the numbers of workers, nodes and GPUs start at 1")
    if smallest > workers:
        raise ClusterError(f"--min-workers {smallest} is more than the {workers} workers asked for; lower it")
    if workers > recipe.train.global_batch_size:
        raise ClusterError(
            f"{workers} workers are more than the {recipe.train.global_batch_size} sequences of a step; ask "
            f"for fewer workers, or begin another --output with train.global_batch_size={workers} or more"
        )
    return Scale(workers, smallest, gpu=cpu_workers is None)


def workers_that_fit(nodes: Sequence[Node], *, gpu: bool, cpus_per_worker: float) -> int:
    """How many workers of this size the machines hold."""
    total = 0
    for node in nodes:
        # The small number forgives 0.1 * 3 > 0.3.
        slots = math.floor(node.cpus / cpus_per_worker + 1e-9)
        total += min(slots, math.floor(node.gpus)) if gpu else slots
    return total


def cpus_per_worker(nodes: Sequence[Node], scale: Scale) -> float:
    """The most CPUs a worker that still lets as many workers start as the smallest size would.

    Below 1 on boxes with fewer CPUs than GPUs.

    Raises:
        ClusterError: the machines hold fewer workers than asked, whatever their size.
    """
    sizes: list[float] = [*range(MAX_CPUS_PER_WORKER, 0, -1)]
    if scale.gpu:  # a CPU worker below one CPU would only compete with another
        sizes += [0.5, 0.25, 0.1]
    most = min(scale.workers, workers_that_fit(nodes, gpu=scale.gpu, cpus_per_worker=sizes[-1]))
    if most >= scale.min_workers:
        fitting = (s for s in sizes if workers_that_fit(nodes, gpu=scale.gpu, cpus_per_worker=s) >= most)
        return float(next(fitting))
    have = ", ".join(f"{n.address}: {n.cpus:g} CPUs, {n.gpus:g} GPUs" for n in nodes) or "no node"
    kind = "GPUs" if scale.gpu else "CPUs"
    raise ClusterError(
        f"the cluster has too few {kind} for {scale.min_workers} workers ({have}); start Ray on the missing "
        "machines, ask for fewer workers, or lower --min-workers"
    )

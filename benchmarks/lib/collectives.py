"""Counts what ranks exchange: calls and payload bytes of every collective, ours and DeepSpeed's."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed
from torch import Tensor

# The name of a collective -> which of its first two arguments is the payload.
COLLECTIVES = {
    "all_reduce": 0,
    "reduce": 0,
    "broadcast": 0,
    "all_gather_into_tensor": 0,
    "reduce_scatter_tensor": 1,
    "all_reduce_coalesced": 0,
}


class Collectives:
    """`calls` and `payload_bytes` by collective since `reset`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.payload_bytes: Counter[str] = Counter()
        self.depth = 0

    def reset(self) -> None:
        """Starts again at zero."""
        self.calls.clear()
        self.payload_bytes.clear()

    def wire_bytes(self, world: int) -> float:
        """What one rank sends on average, by the usual cost of each collective (Thakur et al. 2005): an
        all-reduce moves its payload twice over the other ranks, everything else once."""
        twice = sum(self.payload_bytes[name] for name in ("all_reduce", "all_reduce_coalesced"))
        return (self.payload_bytes.total() + twice) * (world - 1) / world

    def as_json(self) -> dict[str, Any]:
        """Totals, and the calls by name."""
        return {
            "calls": self.calls.total(),
            "payload_bytes": self.payload_bytes.total(),
            "by_name": dict(self.calls),
        }

    def wrap(self, name: str, function: Callable[..., Any], first: int) -> Callable[..., Any]:
        """`function`, counted unless it runs inside another counted one."""

        @functools.wraps(function)
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.depth == 0:
                payload = arguments[first] if len(arguments) > first else next(iter(options.values()))
                tensors = payload if isinstance(payload, list | tuple) else [payload]
                self.calls[name] += 1
                self.payload_bytes[name] += sum(_bytes(tensor) for tensor in tensors)
            self.depth += 1
            try:
                return function(*arguments, **options)
            finally:
                self.depth -= 1

        return counted


@contextmanager
def counted_collectives() -> Iterator[Collectives]:
    """Counts from here on, below torch.distributed and DeepSpeed's own backend alike."""
    from deepspeed.comm.torch import TorchBackend

    counter = Collectives()
    places: list[tuple[Any, str, Any]] = []
    for name, payload in COLLECTIVES.items():
        for owner, first in ((torch.distributed, payload), (TorchBackend, payload + 1)):
            ordinary = getattr(owner, name, None)
            if ordinary is not None:
                places.append((owner, name, ordinary))
                setattr(owner, name, counter.wrap(name, ordinary, first))
    try:
        yield counter
    finally:
        for owner, name, ordinary in places:
            setattr(owner, name, ordinary)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

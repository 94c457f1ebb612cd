"""Numbers that ranks agree on. Also where a rank on a GPU waits for others: at the read of the value.

The watchdog takes a thread below this file for one that waits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor


def sum_tensor(value: Tensor, world_size: int) -> Tensor:
    """The sum of a tensor over all ranks, in place."""
    if world_size > 1:
        torch.distributed.all_reduce(value)
    return value


def sum_float(value: Tensor | float, device: torch.device, world_size: int) -> float:
    """The sum of a float64 scalar over all ranks."""
    return float(sum_tensor(torch.as_tensor(value, dtype=torch.float64).to(device), world_size))


def sum_floats(values: Tensor | Sequence[float], device: torch.device, world_size: int) -> list[float]:
    """The sum of each float64 over all ranks, in one exchange."""
    numbers = torch.as_tensor(values, dtype=torch.float64).to(device)
    found: list[float] = sum_tensor(numbers, world_size).tolist()
    return found


def sum_counts(values: Sequence[int], device: torch.device, world_size: int) -> list[int]:
    """The sum of each whole number over all ranks, in one exchange."""
    counts = sum_tensor(torch.tensor(list(values), dtype=torch.int64, device=device), world_size)
    return [int(count) for count in counts.tolist()]


def max_count(value: int, device: torch.device, world_size: int) -> int:
    """The largest of a whole number over all ranks."""
    tensor = torch.tensor(value, dtype=torch.int64, device=device)
    if world_size > 1:
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return int(tensor)

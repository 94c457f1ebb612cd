"""Time and memory on a device, as medians and peaks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

WARM_UP, LEAST_RUNS, MOST_RUNS = 3, 5, 50
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def median_ms(action: Callable[[], object], device: torch.device, budget_s: float = 0.5) -> float:
    """Median time of a call in ms: by CUDA events on a GPU, by the clock elsewhere.

    Args:
        budget_s: when to stop, after 5 runs at the least and 50 at most.
    """
    for _ in range(WARM_UP):
        action()
    times: list[float] = []
    started_s = time.perf_counter()
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and time.perf_counter() - started_s < budget_s):
        times.append(_once_ms(action, device))
    return statistics.median(times)


def _once_ms(action: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started_s = time.perf_counter()
        action()
        return (time.perf_counter() - started_s) * 1000
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    action()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def reset_peak(device: torch.device) -> None:
    """What is held now is the peak from here on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")  # resets VmHWM to the present size


def memory_bytes(device: torch.device) -> dict[str, int]:
    """On a GPU what torch's allocator holds and has held at most, and what is in use beside it: context,
    NCCL, other programs. Elsewhere the process's resident memory."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        return {
            "allocated_bytes": torch.cuda.memory_allocated(device),
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
            "outside_allocator_bytes": total - free - torch.cuda.memory_reserved(device),
        }
    return {"resident_bytes": _status_bytes("VmRSS"), "peak_resident_bytes": _status_bytes("VmHWM")}


def _status_bytes(key: str) -> int:
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0

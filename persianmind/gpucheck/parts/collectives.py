"""Bandwidth of the collectives that ZeRO-2 uses, with peer-to-peer on and off."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from persianmind.gpucheck.fanout import run_on_ranks
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.setting import PartSetting, require_ranks
from persianmind.gpucheck.timing import median_ms

MIB = 1 << 20
SIZES_MIB, SMALL_SIZES_MIB = (1, 16, 128), (1,)
TIMEOUT_S = 30.0
P2P = {"on": "0", "off": "1"}  # NCCL_P2P_DISABLE


def measure_collectives(setting: PartSetting, findings: Findings) -> None:
    """Each setting in fresh processes: NCCL reads its variables once. Gloo, on the CPU, has none."""
    count = require_ranks(setting, 2)
    shown = []
    for name, value in ({"none": ""} if setting.small else P2P).items():
        environment = {"NCCL_P2P_DISABLE": value} if value else {}
        found = run_on_ranks(
            f"{__name__}:time_on_rank", setting, count, label=f"p2p-{name}", environment=environment
        )
        rows = found[0]["rows"]
        findings.append("p2p", {"p2p": name, "ranks": count, "rows": rows})
        findings.expect(f"p2p {name}: sums are right", all(one["is_right"] for one in found))
        best = max(row["bus_gb_per_s"] for row in rows if row["collective"] == "all_reduce")
        shown.append(f"p2p {name} {best:.1f} GB/s")
    findings.summarise(f"all_reduce over {count} ranks, bus bandwidth at best: {', '.join(shown)}")


def time_on_rank(setting: PartSetting, findings: Findings) -> None:
    """On every rank: medians by size. Bus bandwidth as nccl-tests define it."""
    device = setting.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "gloo" if setting.small else "nccl", timeout=timedelta(seconds=TIMEOUT_S)
    )
    world = torch.distributed.get_world_size()
    ones = torch.ones(1024, device=device)
    torch.distributed.all_reduce(ones)
    findings.record(is_right=bool((ones == world).all()), p2p_disable=os.environ.get("NCCL_P2P_DISABLE"))
    rows: list[dict[str, Any]] = []
    for size in SMALL_SIZES_MIB if setting.small else SIZES_MIB:
        for name, (action, factor) in _actions(size * MIB, world, device).items():
            torch.distributed.barrier()
            # A fixed number of runs: every rank must call as often as the others.
            ms = median_ms(action, device, budget_s=0.0)
            bandwidth = size * MIB / (ms / 1000) / 1e9
            row = {"collective": name, "mib": size, "ms": ms, "gb_per_s": bandwidth}
            rows.append({**row, "bus_gb_per_s": bandwidth * factor})
    findings.record(rows=rows)


def _actions(
    size_bytes: int, world: int, device: torch.device
) -> dict[str, tuple[Callable[[], object], float]]:
    """name -> (one call over `size_bytes` in bf16, bus bandwidth over plain bandwidth)."""
    count = size_bytes // 2 // world * world
    whole = torch.ones(count, dtype=torch.bfloat16, device=device)
    share = torch.ones(count // world, dtype=torch.bfloat16, device=device)
    part = (world - 1) / world
    group = torch.distributed
    return {
        "all_reduce": (lambda: group.all_reduce(whole), 2 * part),
        "reduce_scatter": (lambda: group.reduce_scatter_tensor(share, whole), part),
        "all_gather": (lambda: group.all_gather_into_tensor(whole, share), part),
    }

"""Doctor's check that ranks of this machine exchange numbers, and how fast: real processes, gloo or NCCL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persianmind.checks.base import Check, CheckContext, CheckResult
from persianmind.common.device.choice import current_device
from persianmind.gpucheck.fanout import RankFailedError, run_on_ranks
from persianmind.gpucheck.setting import PartSetting

LIMIT_S = 120.0
# An RTX 3090 that goes through host memory at PCIe 3.0 x8 reaches about 3 GB/s; below 1 something is wrong.
LEAST_GPU_GB_PER_S = 1.0
TIMING = "persianmind.gpucheck.parts.collectives:time_on_rank"


def check_ranks(context: CheckContext) -> Iterator[CheckResult]:
    """One all-reduce over `context.ranks` processes; imports torch in them alone."""
    if context.ranks == 1:
        yield CheckResult.ok("ranks", "one rank exchanges nothing; --ranks N tries N")
        return
    small = current_device().kind == "cpu"
    with tempfile.TemporaryDirectory(prefix="persianmind-doctor-") as folder:
        setting = PartSetting(small=small, folder=Path(folder), limit_s=LIMIT_S)
        try:
            found = run_on_ranks(TIMING, setting, context.ranks, label="doctor", quiet=True)
        except RankFailedError as error:
            line = " ".join(str(error).split())[:400]
            yield CheckResult.fail(
                "ranks",
                f"{context.ranks} ranks cannot exchange numbers: {line}; NCCL_DEBUG=INFO shows where it "
                "stops, docs/troubleshooting.md what it means",
            )
            return
    yield rank_finding(found, small=small)


def rank_finding(found: list[dict[str, Any]], *, small: bool) -> CheckResult:
    """found: what each rank measured. small: on the CPU."""
    if not all(one["is_right"] for one in found):
        return CheckResult.fail(
            "ranks",
            "an all-reduce gives wrong sums: memory or a link is faulty; try NCCL_P2P_DISABLE=1",
        )
    best = max(row["bus_gb_per_s"] for row in found[0]["rows"] if row["collective"] == "all_reduce")
    text = (
        f"all-reduce over {len(found)} ranks ({'gloo' if small else 'NCCL'}): {best:.2f} GB/s, sums are right"
    )
    if not small and best < LEAST_GPU_GB_PER_S:
        return CheckResult.warn(
            "ranks", f"{text}, but that is slow; see the lines on links, peers, IOMMU and shared memory"
        )
    return CheckResult.ok("ranks", text)


RANKS = Check("ranks", check_ranks)

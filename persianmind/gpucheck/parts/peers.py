"""Our engine against transformers Trainer, and TRL where it is installed, at one shape on one GPU."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from persianmind.common.paths import PROJECT_ROOT
from persianmind.gpucheck.fanout import RankFailedError, run_on_ranks
from persianmind.gpucheck.findings import Findings, NotApplicableError
from persianmind.gpucheck.setting import PartSetting

SIDES = PROJECT_ROOT / "benchmarks" / "lib" / "gpu_peers.py"
OURS = "ours"


def measure_peers(setting: PartSetting, findings: Findings) -> None:
    """Useful tokens per second of each; a side whose memory is out is reported so, and is no failure."""
    if not SIDES.is_file():
        raise NotApplicableError(f"{SIDES} is not here: run the check from a checkout of the project")
    speeds: dict[str, float] = {}
    for side in (OURS, "hf", "trl"):
        if side == "trl" and importlib.util.find_spec("trl") is None:
            findings.append("sides", {"side": side, "missing": "trl is not installed"})
            continue
        row = _run(side, setting)
        findings.append("sides", {"side": side, **row})
        missing = row.get("missing", "")
        findings.expect(
            f"{side} ran", not missing or (side != OURS and "OutOfMemory" in missing), why=missing
        )
        if not missing:
            speeds[side] = row["useful_tokens_per_s"]
    ratios = {f"{OURS}_over_{side}": speeds[OURS] / speeds[side] for side in speeds if side != OURS}
    findings.record(ratios=ratios)
    findings.summarise(
        ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()) or "nothing to compare"
    )


def _run(side: str, setting: PartSetting) -> dict[str, Any]:
    """On the first GPU alone: with more, Trainer would spread the batch over all of them."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    try:
        (values,) = run_on_ranks(
            f"benchmarks.lib.gpu_peers:measure_{side}",
            setting,
            1,
            label=side,
            environment={"CUDA_VISIBLE_DEVICES": first},
        )
    except RankFailedError as error:
        return {"missing": str(error)}
    return values

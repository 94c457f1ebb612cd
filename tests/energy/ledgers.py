"""Ledgers written by hand, and a fake NVML that a real meter process reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FAKE_NVML = Path(__file__).parent / "fake_nvml"


def line(kind: str, attempt: str, node: str, time: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": time, "monotonic_s": 0.0, "attempt": attempt, "node": node, **fields}


def sample(
    attempt: str, node: str, stage: str, steps: tuple[int, int], joules: dict[str, float], *,
    seconds: float = 60.0, time: str = "2026-03-01T06:00:00+00:00", kind: str = "measured",
) -> dict[str, Any]:  # fmt: skip
    parts = [{"component": c, "joules": j, "kind": kind, "source": "test"} for c, j in joules.items()]
    step_from, step = steps
    fields = {"seconds": seconds, "stage": stage, "step_from": step_from, "step": step, "joules": parts}
    return line("sample", attempt, node, time, **fields)


def write(run: Path, node: str, lines: list[dict[str, Any]]) -> Path:
    path = run / "energy" / f"{node}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return path


def read_lines(run: Path, node: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run / "energy" / f"{node}.jsonl").read_text().splitlines()]


def fake_nvml_environment(control: Path, watts: list[float], **more: Any) -> dict[str, str]:
    """The environment in which a meter process finds these GPUs; `control` may be rewritten while it runs."""
    control.write_text(json.dumps({"watts": watts, **more}))
    path = os.environ.get("PYTHONPATH", "")
    return {
        "PYTHONPATH": f"{FAKE_NVML}{os.pathsep}{path}",
        "PATH": f"{FAKE_NVML}{os.pathsep}{os.environ['PATH']}",
        "FAKE_NVML_CONTROL": str(control),
    }

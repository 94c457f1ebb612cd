"""Ledgers and metrics written by hand, and a fake NVML that a real meter process reads."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.checksum import dump_checked_line, parse_checked_line
from persianmind.run.energy_records import EnergyLine, EnergyReading, EnergySample, EnergyStart, EnergyStop
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase, StepRecord

# pynvml.py, and an nvidia-smi that only exits with 0: codecarbon runs it to see whether the machine has GPUs.
FAKE_NVML = Path(__file__).parent / "fake_nvml"
MORNING = "2026-03-01T06:00:00+00:00"


def _head(attempt: str, node: str, time: str) -> dict[str, Any]:
    return {"time": time, "monotonic_s": 0.0, "attempt": attempt, "node": node}


def start(attempt: str, node: str, time: str = MORNING, *, resumed_step: int | None = None) -> EnergyStart:
    return EnergyStart(
        **_head(attempt, node, time),
        resumed_step=resumed_step,
        interval_s=5.0,
        pid=1,
        codecarbon="test",
        host={},
    )


def stop(attempt: str, node: str, time: str = MORNING) -> EnergyStop:
    return EnergyStop(**_head(attempt, node, time), reason="stopped", total_j=0.0)


def sample(
    attempt: str, node: str, label: str, steps: tuple[int, int], joules: dict[str, float], *,
    seconds: float = 60.0, time: str = MORNING, kind: str = "measured", phase: Phase | None = None,
) -> EnergySample:  # fmt: skip
    """`label`: as people see it, such as "prepare:data"; any other word is a stage that trains. `phase`:
    where the label alone would say another."""
    head, _, part = label.partition(":")
    if phase is None:
        phase, stage = (Phase(head), part) if head in set(Phase) else (Phase.TRAIN, label)
    else:
        stage = label
    readings = [
        EnergyReading.model_validate({"component": c, "joules": j, "kind": kind, "source": "test"})
        for c, j in joules.items()
    ]
    return EnergySample(
        **_head(attempt, node, time),
        seconds=seconds,
        phase=phase,
        stage=stage,
        step_from=steps[0],
        step=steps[1],
        readings=readings,
    )


def write(run: Path, node: str, lines: Sequence[EnergyLine]) -> Path:
    path = RunFolder(run).ledger(node)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(dump_checked_line(item.model_dump(mode="json")) + "\n" for item in lines))
    return path


def read_lines(run: Path, node: str) -> list[dict[str, Any]]:
    """What a meter wrote; every line whole."""
    lines = RunFolder(run).ledger(node).read_text().splitlines()
    found = [parse_checked_line(text) for text in lines]
    assert None not in found
    return [line for line in found if line is not None]


def step_line(step: int, useful_tokens: int) -> str:
    """A line of metrics.jsonl."""
    record = StepRecord(
        stage="pretrain", step=step, stage_step=step, loss=1.0, loss_hex="0x1p+0", tokens=useful_tokens,
        useful_tokens=useful_tokens, target_tokens=useful_tokens, tokens_per_s=1.0, useful_tokens_per_s=1.0,
        characters_per_s=None, grad_norm=1.0, learning_rate=1e-4, embedding_learning_rate=1e-4, skipped=False,
        skip_reason=None, first_sample=0, samples=1, seconds=1.0, mfu=None, peak_memory_bytes=None,
        peak_device_memory_bytes=None, joules=None, step_joules=None, time=MORNING,
    )  # fmt: skip
    return dump_checked_line(record.model_dump(mode="json")) + "\n"


def use_fake_nvml(monkeypatch: pytest.MonkeyPatch, control: Path, watts: list[float], **more: Any) -> None:
    """Gives this process, and those it starts, these GPUs."""
    for name, value in fake_nvml_environment(control, watts, **more).items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("pynvml", FAKE_NVML / "pynvml.py")
    assert spec is not None and spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def fake_nvml_environment(control: Path, watts: list[float], **more: Any) -> dict[str, str]:
    """The environment in which a meter process finds these GPUs; `control` may be rewritten while it runs."""
    new = control.with_suffix(".new")
    new.write_text(json.dumps({"watts": watts, **more}))
    new.replace(control)
    path = os.environ.get("PYTHONPATH", "")
    return {
        "PYTHONPATH": f"{FAKE_NVML}{os.pathsep}{path}",
        "PATH": f"{FAKE_NVML}{os.pathsep}{os.environ['PATH']}",
        "FAKE_NVML_CONTROL": str(control),
    }

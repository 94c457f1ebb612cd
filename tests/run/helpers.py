"""Records for tests of the run folder."""

from __future__ import annotations

from typing import Any

from persianmind.run.records import StepRecord


def step_record(step: int, **changes: Any) -> StepRecord:
    """A sound line of metrics.jsonl, with the given fields replaced."""
    values: dict[str, Any] = {
        "stage": "pretrain",
        "step": step,
        "stage_step": step,
        "loss": 1.5,
        "loss_hex": (1.5).hex(),
        "tokens": 1024,
        "useful_tokens": 1000,
        "target_tokens": 900,
        "tokens_per_s": 9.0,
        "useful_tokens_per_s": 8.0,
        "characters_per_s": None,
        "grad_norm": None,
        "learning_rate": 0.1,
        "embedding_learning_rate": 0.2,
        "skipped": False,
        "skip_reason": None,
        "first_sample": 4 * (step - 1),
        "samples": 4,
        "seconds": 0.5,
        "mfu": None,
        "peak_memory_bytes": 1,
        "peak_device_memory_bytes": None,
        "joules": None,
        "step_joules": None,
        "time": "2026-01-01T00:00:00+00:00",
    }
    return StepRecord.model_validate({**values, **changes})

"""The line of metrics.jsonl that describes one optimizer step."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from persianmind.data.read.batches import StageData
from persianmind.engine.deepspeed.engine import Engine, StepResult
from persianmind.estimate.flops import flops_per_token, peak_flops
from persianmind.recipe import Recipe


class StepMetrics:
    """Turns a step's result into the values that are logged; holds what does not change from step to step."""

    def __init__(self, recipe: Recipe, engine: Engine) -> None:
        self.seq_len = recipe.data.seq_len
        self.device = engine.device
        self.flops_per_token = flops_per_token(engine.model, recipe.data.seq_len)
        peak = peak_flops(_device_name(engine), recipe.train.precision)
        self.peak_flops = None if peak is None else peak * engine.ranks.world_size
        self._joules: float | None = None

    def values(
        self,
        step: int,
        stage: tuple[str, int],
        samples: range,
        data: StageData,
        result: StepResult,
        rates: Mapping[str, float],
        seconds: float,
        joules: float | None,
    ) -> dict[str, Any]:
        """stage: (name, step within it). joules: what this node's meter has counted in this attempt."""
        tokens = len(samples) * self.seq_len
        useful = data.useful_tokens(samples)
        characters = data.characters(samples)
        tokens_per_s = tokens / seconds
        mfu = None if self.peak_flops is None else tokens_per_s * self.flops_per_token / self.peak_flops
        return {
            "stage": stage[0],
            "step": step,
            "stage_step": stage[1],
            "loss": result.loss if math.isfinite(result.loss) else None,
            "loss_hex": float.hex(result.loss),
            "tokens": tokens,
            "useful_tokens": useful,
            "target_tokens": result.target_tokens,
            "tokens_per_s": tokens_per_s,
            "useful_tokens_per_s": useful / seconds,
            "characters_per_s": None if characters is None else characters / seconds,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "learning_rate": rates["adapters_a"],
            "embedding_learning_rate": rates["embeddings"],
            "applied": result.applied,
            "spike": result.skipped,
            "first_sample": samples.start,
            "samples": len(samples),
            "seconds": seconds,
            "mfu": mfu,
            **self._memory(),
            "joules": joules,
            "step_joules": self._difference(joules),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def _memory(self) -> dict[str, int | None]:
        """Highest use so far: of this process, and of its GPU where it has one."""
        on_device = None
        if self.device.type == "cuda":
            import torch

            on_device = int(torch.cuda.max_memory_allocated(self.device))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"peak_memory_bytes": peak, "peak_device_memory_bytes": on_device}

    def _difference(self, joules: float | None) -> float | None:
        """Joules since the line before; the meter writes at its own interval, so a short step can show 0."""
        before, self._joules = self._joules, joules
        return None if joules is None or before is None else joules - before


def _device_name(engine: Engine) -> str:
    if engine.device.type != "cuda":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(engine.device))

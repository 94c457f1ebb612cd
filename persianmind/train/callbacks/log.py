"""One line of metrics.jsonl per optimizer step."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from persianmind.common.checkout import source_commit
from persianmind.engine.base import Engine
from persianmind.estimate.flops import flops_per_token, peak_flops
from persianmind.recipe import Recipe
from persianmind.run.log import update_results
from persianmind.run.records import SkipReason, StepRecord
from persianmind.train.callbacks.base import Callback
from persianmind.train.memory import memory_by_kind

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome


class LogCallback(Callback):
    """Makes the record of each step on rank 0 and appends it; holds what does not change from step to
    step."""

    name = "log"

    def __init__(self, recipe: Recipe, engine: Engine) -> None:
        lengths = {recipe.seq_len_of(stage) for stage in recipe.stages}
        self.flops_per_token = {length: flops_per_token(engine.model, length) for length in lengths}
        peak = peak_flops(_device_name(engine), recipe.train.precision)
        self.peak_flops = None if peak is None else peak * engine.ranks.world_size
        self._joules: float | None = None

    def start(self, context: RunContext) -> None:
        """Lines beyond the step that the run goes on from describe steps that will be done again."""
        context.log.rewind(context.step)
        if context.is_main:
            update_results(context.folder, total_steps=context.total_steps, commit=source_commit())

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        if context.is_main:
            context.record = self._record(context, outcome)
            context.log.append(context.record)

    def close(self, context: RunContext) -> None:
        context.log.close()

    def _record(self, context: RunContext, outcome: StepOutcome) -> StepRecord:
        result, samples, seconds = outcome.result, outcome.samples, outcome.seconds
        tokens = len(samples) * context.seq_len
        useful = outcome.data.useful_tokens(samples)
        characters = outcome.data.characters(samples)
        tokens_per_s = tokens / seconds
        by_source = _loss_by_source(outcome)
        bits_by_source = _bits_by_source(outcome, by_source)
        joules = None if context.meter is None else context.meter.joules()
        peak_bytes, peak_device_bytes = _peak_memory(context.engine)
        micro_batch = context.micro_batches.get(context.seq_len)
        return StepRecord(
            stage=context.plan.stage.name,
            step=context.step,
            stage_step=context.stage_step,
            loss=result.loss if math.isfinite(result.loss) else None,
            loss_hex=float.hex(result.loss),
            tokens=tokens,
            useful_tokens=useful,
            target_tokens=result.target_tokens,
            tokens_per_s=tokens_per_s,
            useful_tokens_per_s=useful / seconds,
            characters_per_s=None if characters is None else characters / seconds,
            grad_norm=result.grad_norm if math.isfinite(result.grad_norm) else None,
            learning_rate=outcome.rates["adapters_a"],
            embedding_learning_rate=outcome.rates["embeddings"],
            skipped=result.skip_reason is not None,
            skip_reason=None if result.skip_reason is None else SkipReason(result.skip_reason),
            first_sample=samples.start,
            samples=len(samples),
            seconds=seconds,
            mfu=None
            if self.peak_flops is None
            else tokens_per_s * self.flops_per_token[context.seq_len] / self.peak_flops,
            peak_memory_bytes=peak_bytes,
            peak_device_memory_bytes=peak_device_bytes,
            memory=None
            if micro_batch is None
            else memory_by_kind(context.engine, micro_batch, peak_device_bytes or peak_bytes),
            joules=joules,
            step_joules=self._difference(joules),
            loss_by_source={source: nats / targets for source, (nats, targets) in by_source.items()},
            bits_per_byte_by_source={source: bits / size for source, (bits, size) in bits_by_source.items()},
            bits_per_byte_by_language=_by_language(context.recipe, bits_by_source),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    def _difference(self, joules: float | None) -> float | None:
        """Joules since the line before; the meter writes at its own interval, so a short step can show 0."""
        before, self._joules = self._joules, joules
        return None if joules is None or before is None else joules - before


def _loss_by_source(outcome: StepOutcome) -> dict[str, tuple[float, int]]:
    """(summed nats, targets) of each source that had targets in the step, where the loss is finite."""
    if not outcome.result.source_losses:
        return {}
    targets = outcome.data.targets_by_source(outcome.samples)
    summed = dict(zip(outcome.data.sources, outcome.result.source_losses, strict=True))
    return {
        source: (summed[source], count)
        for source, count in targets.items()
        if count and math.isfinite(summed[source])
    }


def _bits_by_source(
    outcome: StepOutcome, by_source: Mapping[str, tuple[float, int]]
) -> dict[str, tuple[float, float]]:
    """(bits, bytes that the targets stand for); nothing of a source that is still being built."""
    found = {}
    for source, (nats, targets) in by_source.items():
        if (bytes_per_token := outcome.data.bytes_per_token(source)) is not None:
            found[source] = (nats / math.log(2), targets * bytes_per_token)
    return found


def _by_language(recipe: Recipe, bits_by_source: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    totals: dict[str, tuple[float, float]] = {}
    for source, (bits, size) in bits_by_source.items():
        language = recipe.sources[source].target
        before = totals.get(language, (0.0, 0.0))
        totals[language] = (before[0] + bits, before[1] + size)
    return {language: bits / size for language, (bits, size) in totals.items() if size}


def _peak_memory(engine: Engine) -> tuple[int, int | None]:
    """Highest use so far: of this process, and of its GPU where it has one."""
    on_device = None
    if engine.device.type == "cuda":
        import torch

        on_device = int(torch.cuda.max_memory_allocated(engine.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, on_device


def _device_name(engine: Engine) -> str:
    if engine.device.type != "cuda":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(engine.device))

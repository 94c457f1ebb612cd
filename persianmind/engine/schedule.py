"""Learning rates and micro-batches as pure functions: no state, so nothing to save or to restore."""

from __future__ import annotations

import math

from persianmind.recipe import Adapter, Stage, Train


def gradient_accumulation_steps(global_batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Micro-batches that a rank sums up before one optimizer step: the most that any rank has.

    The global batch need not divide: then some ranks have a sequence less, or the last micro-batch is
    smaller. A rank without a sequence runs one micro-batch of padding.

    Args:
        global_batch_size: sequences of one optimizer step over all ranks.
        micro_batch_size: the most sequences of one forward pass on one rank.
    """
    per_rank = math.ceil(global_batch_size / world_size)
    return math.ceil(per_rank / micro_batch_size)


def learning_rate_ratio(
    step: int,
    steps: int,
    *,
    schedule: str,
    warmup_ratio: float,
    floor: float,
    warmup_steps: int | None = None,
) -> float:
    """The rate over its peak at `step` (0-based) of a stage of `steps`, in (0, 1].

    Linear warm-up over `warmup_steps`, or `warmup_ratio` of the stage, then: `constant`, `cosine` to `floor`
    (Loshchilov and Hutter, arXiv 1608.03983), `linear` to `floor`, or `wsd`: flat, then linear to `floor`
    over the last fifth (Hu et al., arXiv 2404.06395).
    """
    if warmup_steps is None:
        warmup_steps = math.ceil(warmup_ratio * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return floor + (1 - floor) * (1 - progress)
    decay_ratio = 0.2
    remaining = min(1.0, (1 - progress) / decay_ratio)
    return floor + (1 - floor) * remaining


def group_rates(train: Train, adapter: Adapter, stage: Stage, step: int, steps: int) -> dict[str, float]:
    """The learning rate of every parameter group (`groups.GROUPS`) at a stage's step.

    A part the stage does not train gets 0. LoRA+ (arXiv 2402.12354) multiplies the rate of the B factors.
    """
    ratio = learning_rate_ratio(
        step,
        steps,
        schedule=train.schedule,
        warmup_ratio=train.warmup_ratio,
        warmup_steps=train.warmup_steps,
        floor=train.min_lr_ratio,
    )
    adapters = (stage.learning_rate or train.learning_rate) * ratio
    embedding_peak = stage.embedding_learning_rate or train.embedding_learning_rate
    embeddings = embedding_peak * ratio if embedding_peak else adapters
    adapters = adapters if "adapters" in stage.trained else 0.0
    return {
        "adapters_a": adapters,
        "adapters_b": adapters * adapter.lora_plus_ratio,
        "embeddings": embeddings if "embeddings" in stage.trained else 0.0,
    }

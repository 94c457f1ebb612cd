"""Learning rates as pure functions of the step: no state, so nothing to save or to restore."""

from __future__ import annotations

import math

from persianmind.recipe import Recipe, Stage


def learning_rate_ratio(step: int, steps: int, *, schedule: str, warmup_ratio: float, floor: float) -> float:
    """The share of the peak rate at `step` (0-based) of a stage of `steps`, in (0, 1].

    Linear warm-up over `warmup_ratio` of the stage, then: `cosine` to `floor` (Loshchilov and Hutter,
    arXiv 1608.03983), `linear` to `floor`, or `wsd`: flat, then linear to `floor` over the last fifth
    (Hu et al., arXiv 2404.06395).
    """
    warmup_steps = math.ceil(warmup_ratio * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return floor + (1 - floor) * (1 - progress)
    decay_share = 0.2
    remaining = min(1.0, (1 - progress) / decay_share)
    return floor + (1 - floor) * remaining


def group_rates(recipe: Recipe, stage: Stage, step: int, steps: int) -> dict[str, float]:
    """The learning rate of every parameter group ("adapters_a", "adapters_b", "embeddings") at a stage's
    step.

    A part the stage does not train gets 0. LoRA+ (arXiv 2402.12354) multiplies the rate of the B factors.
    """
    train = recipe.train
    share = learning_rate_ratio(
        step,
        steps,
        schedule=train.schedule,
        warmup_ratio=train.warmup_ratio,
        floor=train.min_lr_ratio,
    )
    adapters = (stage.learning_rate or train.learning_rate) * share
    embedding_peak = stage.embedding_learning_rate or train.embedding_learning_rate
    embeddings = embedding_peak * share if embedding_peak else adapters
    adapters = adapters if "adapters" in stage.trained else 0.0
    return {
        "adapters_a": adapters,
        "adapters_b": adapters * recipe.adapter.lora_plus_ratio,
        "embeddings": embeddings if "embeddings" in stage.trained else 0.0,
    }

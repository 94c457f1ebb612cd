"""The arithmetic of a run, said before step 1: parameters, batch, steps, tokens, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from persianmind.engine.schedule import gradient_accumulation_steps
from persianmind.estimate.flops import weight_count
from persianmind.estimate.memory import gradient_and_optimizer_bytes_per_rank
from persianmind.model.adapted_layers import layers_in_words
from persianmind.model.families import EXPERTS_NOTE, family_of
from persianmind.recipe import Recipe, Stage

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel


def describe_run(
    recipe: Recipe, stages: Sequence[tuple[Stage, int]], model: AdaptedModel, world_size: int
) -> Iterator[str]:
    """One line each for parameters, batch, stages and state memory.

    Args:
        stages: each stage with its number of optimizer steps.
    """
    train = recipe.train
    total = sum(map(weight_count, model.parameters()))
    trained = sum(value.numel() for value in model.trained().values())
    weights_gb = sum(value.numel() * value.element_size() for value in model.parameters()) / 1e9
    state_gb = gradient_and_optimizer_bytes_per_rank(trained, train.precision, world_size) / 1e9
    lengths = dict.fromkeys(map(recipe.seq_len_of, recipe.stages))
    per_step = [f"{one} tokens = {train.global_batch_size * one:,} tokens" for one in lengths]
    accumulation = gradient_accumulation_steps(train.global_batch_size, train.micro_batch_size, world_size)
    whole = train.micro_batch_size * accumulation * world_size == train.global_batch_size
    table = model.output_table
    yield (
        f"model: {total:,} parameters, {trained:,} trained ({trained / total:.2%}); vocabulary "
        f"{table.base_vocab:,} + {table.added_vocab:,}"
    )
    if family_of(model.causal_lm.config).experts:
        yield f"model: {EXPERTS_NOTE}"
    if where := layers_in_words(recipe, model.layer_count):
        yield f"model: adapters in {where} alone"
    yield (
        f"batch: {train.global_batch_size} sequences x {' or '.join(per_step)} "
        f"per step ({train.micro_batch_size} sequences x {accumulation} micro-batches x {world_size} ranks"
        f"{'' if whole else ' at most'})"
    )
    if (idle := world_size - train.global_batch_size) > 0:
        yield (
            f"batch: {idle} of {world_size} ranks have no sequence in a step and only wait; "
            f"train.global_batch_size={world_size} or more would use them"
        )
    for stage, steps in stages:
        yield (
            f"stage {stage.name}: {steps} steps, {steps * recipe.tokens_per_step(stage):,} tokens from "
            f"{', '.join(stage.sources)}{_own_length(stage)}; trains {' and '.join(stage.trained)}"
        )
    yield (
        f"memory per rank: weights {weights_gb:.2f} GB, gradients and optimizer {state_gb:.2f} GB, "
        "activations on top"
    )


def _own_length(stage: Stage) -> str:
    return "" if stage.seq_len is None else f" in sequences of {stage.seq_len}"

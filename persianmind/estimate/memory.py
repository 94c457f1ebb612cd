"""The arithmetic of a run, printed before step 1: batch, tokens, steps, parameters, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from persianmind.estimate.flops import weight_count
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel
    from persianmind.train.stages import StagePlan

BYTES_PER_TRAINED = 4 + 4 + 4  # fp32 master and two Adam moments, sharded over the ranks by ZeRO-2


def describe_run(
    recipe: Recipe, plans: Sequence[StagePlan], model: AdaptedModel, world_size: int
) -> Iterator[str]:
    """One line each for parameters, batch, stages and state memory."""
    total = sum(map(weight_count, model.parameters()))
    trained = sum(value.numel() for value in model.trained().values())
    width = 2 if recipe.train.precision == "bf16" else 4
    weights_gb = sum(value.numel() * value.element_size() for value in model.parameters()) / 1e9
    state_gb = trained * (BYTES_PER_TRAINED / world_size + width) / 1e9
    rows, length = recipe.train.global_batch_size, recipe.data.seq_len
    accumulation = rows // (recipe.train.micro_batch_size * world_size)
    table = model.output_table
    yield (
        f"model: {total:,} parameters, {trained:,} trained ({trained / total:.2%}); vocabulary "
        f"{table.base_vocab:,} + {table.added_vocab:,}"
    )
    yield (
        f"batch: {rows} rows x {length} tokens = {rows * length:,} tokens a step "
        f"({recipe.train.micro_batch_size} rows x {accumulation} micro-batches x {world_size} ranks)"
    )
    for plan in plans:
        yield (
            f"stage {plan.stage.name}: {plan.steps} steps, {plan.steps * rows * length:,} tokens from "
            f"{', '.join(plan.stage.sources)}; trains {' and '.join(plan.stage.trained)}"
        )
    yield (
        f"memory a rank: weights {weights_gb:.2f} GB, gradients and optimizer {state_gb:.2f} GB, activations "
        "on top"
    )

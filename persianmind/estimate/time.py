"""How long the run will take and what it will use, said before step 1 from what it measured on the base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from persianmind.common.units import clock_text, duration_text
from persianmind.energy.budget import Budget
from persianmind.energy.meter.hardware import JOULES_PER_KWH
from persianmind.energy.show import kwh_text
from persianmind.estimate.phases import (
    DISK_BYTES_PER_S,
    EVALUATE_S,
    SAVE_S,
    Phases,
    evaluations_within,
    export_s,
    saves,
)
from persianmind.recipe import Recipe
from persianmind.recipe.train import full_layer_count

# A training step beside a forward pass over as many tokens: the same forward, and about as much again for the
# gradient of the activations (frozen weights get none); recomputed layers go forward once more.
BACKWARD = 1.0


def layers_without_gradient(recipe: Recipe, layers: int) -> int:
    """How many decoder layers, from the first on, the backward pass never comes to: those below the lowest
    adapter, where no embedding is trained either.

    Args:
        layers: of the base.
    """
    return 0 if trains_embeddings(recipe) else recipe.adapter.layer_indices(layers)[0]


def trains_embeddings(recipe: Recipe) -> bool:
    """Whether a gradient has to reach the embeddings: all of them are trained, or there are new ones."""
    vocab = recipe.vocab
    added = vocab.new_tokens if vocab.train_size is None else vocab.train_size
    return vocab.train_embeddings == "all" or added > 0 or vocab.pad_token


def recomputed_ratio(recipe: Recipe, layers: int) -> float:
    """The part of the decoder layers that goes forward twice; what `selective` computes again takes next to
    nothing, and a layer without a gradient is never computed again."""
    whole = full_layer_count(recipe.train.gradient_checkpointing, layers)
    return max(0, whole - layers_without_gradient(recipe, layers)) / layers


def step_over_forward(recipe: Recipe, layers: int) -> float:
    """Time of a training step in forward passes over the same tokens."""
    backward = BACKWARD * (1 - layers_without_gradient(recipe, layers) / layers)
    return 1.0 + backward + recomputed_ratio(recipe, layers)


def eta_s(recipe: Recipe, layers: int, tokens: int, forward_s: float, forward_tokens: int) -> float:
    """Seconds that training on this number of packed positions will take.

    Args:
        layers: of the base.
        forward_s, forward_tokens: what scoring the base took on all ranks together.
    """
    return tokens * step_over_forward(recipe, layers) * forward_s / max(1, forward_tokens)


@dataclass(frozen=True, slots=True)
class FirstScores:
    """What a run has measured of itself before step 1, on the untouched base.

    forward_s, forward_tokens: scoring the held-out text, on all ranks together. sample_s: writing the
    samples. suites_s: the suites.
    stage_tokens: what an evaluation scores once the vocabulary is expanded. weight_bytes: of the model.
    ranks: how many score together. elapsed_s: since the process began. layers: of the base.
    """

    forward_s: float
    forward_tokens: int
    sample_s: float
    suites_s: float
    stage_tokens: int
    weight_bytes: int
    ranks: int
    elapsed_s: float
    layers: int

    @property
    def scores_s(self) -> float:
        """Of scoring the held-out text in the expanded vocabulary."""
        token_s = self.forward_s / max(1, self.forward_tokens)
        return EVALUATE_S + self.stage_tokens * token_s

    def within_s(self, with_suites: bool) -> float:
        """Of an evaluation within a stage."""
        return self.scores_s + (self.suites_s if with_suites else 0.0)


def remaining_phases(recipe: Recipe, steps: int, tokens: int, measured: FirstScores) -> Phases:
    """Seconds of everything that is still to come before step 1: preparation and start are over.

    Args:
        steps, tokens: of all stages; tokens are packed positions.
    """
    token_s = measured.forward_s / max(1, measured.forward_tokens)
    stages, within = len(recipe.stages), evaluations_within(recipe, steps)
    return Phases(
        prepare_s=0.0,
        start_s=0.0,
        steps_s=eta_s(recipe, measured.layers, tokens, measured.forward_s, measured.forward_tokens),
        evaluation_s=stages * (measured.scores_s + measured.suites_s)
        + within * measured.within_s(recipe.evaluate.suites_within_stages),
        samples_s=stages * measured.sample_s,
        checkpoints_s=saves(recipe, steps) * SAVE_S,
        export_s=export_s(
            recipe,
            weight_bytes=measured.weight_bytes,
            bytes_per_s=DISK_BYTES_PER_S,
            rank_token_s=token_s * measured.ranks,
            sample_s=measured.sample_s,
        ),
    )


def estimate_run(
    recipe: Recipe, steps: int, tokens: int, measured: FirstScores, watts: float | None, budget: Budget
) -> Iterator[str]:
    """Lines with hours and kWh of the rest of the run, and of the whole; a warning where an energy budget
    will not do.

    Args:
        steps, tokens: optimizer steps of all stages, and their packed positions.
        watts: of all nodes; None where nothing is counted.
    """
    phases = remaining_phases(recipe, steps, tokens, measured)
    left_s = phases.total_s
    yield (
        f"estimate: about {duration_text(left_s)} to go, until {clock_text(left_s)}, and "
        f"{duration_text(measured.elapsed_s + left_s)} in all: {steps} steps "
        f"{duration_text(phases.steps_s)}, evaluation and samples "
        f"{duration_text(phases.evaluation_s + phases.samples_s)}, checkpoints and "
        f"export {duration_text(phases.checkpoints_s + phases.export_s)}"
    )
    if watts is None:
        yield "estimate: energy is not known yet"
        return
    kwh = watts * left_s / JOULES_PER_KWH
    yield f"estimate: {kwh_text(kwh)} to go at {watts:.0f} W"
    if warning := budget.shortfall(kwh):
        yield warning

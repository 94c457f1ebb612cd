"""How long the run will take and what it will use, said before step 1 from the speed of scoring the base."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.energy.budget import Budget
from persianmind.energy.meter.hardware import JOULES_PER_KWH
from persianmind.estimate.memory import tokens_per_step
from persianmind.recipe import Recipe

# A training step beside a forward pass over as many tokens: the same forward, and about as much again for the
# gradient of the activations (frozen weights get none); recomputed layers go forward once more.
BACKWARD = 1.0


def step_over_forward(recipe: Recipe) -> float:
    """Time of a training step in forward passes over the same tokens."""
    setting = recipe.train.gradient_checkpointing
    recomputed = 0.0 if setting == "off" else 1.0 if setting == "full" else 1.0 / int(setting)
    return 1.0 + BACKWARD + recomputed


def eta_s(recipe: Recipe, steps: int, forward_s: float, forward_tokens: int) -> float:
    """Seconds that `steps` optimizer steps will take.

    Args:
        forward_s, forward_tokens: what scoring the base took on all ranks together.
    """
    tokens = steps * tokens_per_step(recipe)
    return tokens * step_over_forward(recipe) * forward_s / max(1, forward_tokens)


def estimate_run(
    recipe: Recipe, forward_s: float, forward_tokens: int, steps: int, watts: float | None, budget: Budget
) -> Iterator[str]:
    """Lines with hours and kWh of `steps` optimizer steps; a warning where an energy budget will not do.

    Args:
        forward_s, forward_tokens: what scoring the base took on all ranks together.
        watts: of all nodes; None where nothing is counted.
    """
    seconds = eta_s(recipe, steps, forward_s, forward_tokens)
    text = f"estimate: about {_duration(seconds)} for {steps} steps"
    if watts is None:
        yield f"{text}; energy is not known yet"
        return
    kwh = watts * seconds / JOULES_PER_KWH
    yield f"{text} and {kwh:.3g} kWh at {watts:.0f} W"
    if warning := budget.shortfall(kwh):
        yield warning


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""One recipe's memory and time on one target; variants of it reuse what they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.engine.registry import backend
from persianmind.engine.schedule import gradient_accumulation_steps
from persianmind.estimate.bases import VocabularySize
from persianmind.estimate.forecast import Forecast, forecast
from persianmind.estimate.measured import find_measured
from persianmind.estimate.peak import DevicePeak, device_peak
from persianmind.estimate.shapes import ParameterCounts, meta_model, parameter_counts
from persianmind.estimate.static import ResidentBytes, resident_bytes, step_bytes
from persianmind.estimate.target import Target
from persianmind.estimate.trace import Trace, fake_cpu, trace_few_layers, trace_micro_batch
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one recipe. trace: of a full micro-batch of `sequences` sequences on one rank."""

    recipe: Recipe
    counts: ParameterCounts
    resident: ResidentBytes
    trace: Trace
    sequences: int
    accumulation: int
    peak: DevicePeak


@dataclass(frozen=True, slots=True)
class Planner:
    """What stays the same for all variants of a recipe.

    config: config.json of the base. engine_config: DeepSpeed's file; None: the usual one.
    """

    config: Mapping[str, Any]
    vocabulary: VocabularySize
    target: Target
    ranks: int
    engine_config: Path | None

    def estimate(self, recipe: Recipe, *, few_layers: bool = False) -> Estimate:
        """Memory of a recipe whose precision is decided.

        Args:
            few_layers: trace two small models in place of the whole one, for a choice among many.

        Raises:
            RecipeError: the engine's file contradicts the recipe.
        """
        model = self.model(recipe)
        engine = backend()
        path = self.engine_config or engine.default_config
        config = engine.resolve_config(path, recipe, self.ranks)
        train, on_gpu = recipe.train, self.target.gpu is not None
        sequences = min(train.micro_batch_size, math.ceil(train.global_batch_size / self.ranks))
        accumulation = gradient_accumulation_steps(
            train.global_batch_size, train.micro_batch_size, self.ranks
        )
        resident = resident_bytes(model, self.ranks)
        step = step_bytes(model, config, self.ranks, device="gpu" if on_gpu else "cpu")
        counts = parameter_counts(model)
        trace = self._trace(recipe, model, sequences, few_layers)
        peak = device_peak(
            resident, step, trace, accumulation=accumulation, ranks=self.ranks, on_gpu=on_gpu
        )
        return Estimate(recipe, counts, resident, trace, sequences, accumulation, peak)

    def model(self, recipe: Recipe) -> AdaptedModel:
        """On the meta device, with as many new tokens as there may be."""
        return meta_model(recipe, self.config, self.vocabulary.base, self.vocabulary.high)

    def resident(self, recipe: Recipe) -> int:
        """Bytes that a rank holds through the whole of training."""
        return resident_bytes(self.model(recipe), self.ranks).total

    def headroom(self, recipe: Recipe) -> int:
        """Bytes to spare on each rank; below 0 it does not fit. By few layers."""
        return self.spare(self.estimate(recipe, few_layers=True))

    def spare(self, estimate: Estimate) -> int:
        """Bytes to spare by an estimate; with the reserve, which decides."""
        return self.target.usable_bytes - estimate.peak.with_reserve

    def forecast(self, estimate: Estimate, runs: Path | None = None) -> Forecast:
        """Time, energy and money.

        Args:
            runs: where earlier runs of this machine lie, whose speed counts where there are some.
        """
        gpu, counts = self.target.gpu, estimate.counts
        measured = None if runs is None else find_measured(runs, gpu, estimate.recipe, counts.total)
        return forecast(
            estimate.recipe,
            traced_flops_per_micro_batch=estimate.trace.flops,
            parameters=counts,
            gpu=gpu,
            ranks=self.ranks,
            added_vocab=self.vocabulary.high,
            measured=measured,
        )

    def _trace(self, recipe: Recipe, model: AdaptedModel, sequences: int, few_layers: bool) -> Trace:
        seq_len = recipe.data.seq_len
        if self.target.gpu is None:
            with fake_cpu(model) as on_cpu:
                return trace_micro_batch(on_cpu, sequences, seq_len)
        if few_layers:
            vocabulary = self.vocabulary
            return trace_few_layers(recipe, self.config, vocabulary.base, vocabulary.high, sequences)
        return trace_micro_batch(model, sequences, seq_len)


def with_values(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at `section.key`."""
    tree = recipe.model_dump()
    for place, value in changes.items():
        section, key = place.split(".")
        tree[section][key] = value
    return Recipe.model_validate(tree)

"""One recipe's memory and time on one target; what variants of it share is made once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.engine.registry import backend
from persianmind.engine.schedule import gradient_accumulation_steps
from persianmind.estimate.bases import VocabularySize
from persianmind.estimate.forecast import Forecast, forecast
from persianmind.estimate.links import Link
from persianmind.estimate.measured import find_measured
from persianmind.estimate.peak import DevicePeak, device_peak
from persianmind.estimate.recompute import choose_recompute
from persianmind.estimate.shapes import ParameterCounts, meta_model, parameter_counts
from persianmind.estimate.static import ResidentBytes, StepBytes, resident_bytes, step_bytes
from persianmind.estimate.target import Target
from persianmind.estimate.trace import MicroBatchTrace, TracesOfFew, trace_few_layers, with_layers
from persianmind.model.families import check_family
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one recipe. asked: as it was given; recipe: with `gradient_checkpointing: auto` decided. trace: of a
    full micro-batch of `sequences` of the longest sequences on one rank."""

    asked: Recipe
    recipe: Recipe
    counts: ParameterCounts
    resident: ResidentBytes
    trace: MicroBatchTrace
    sequences: int
    accumulation: int
    peak: DevicePeak


@dataclass(frozen=True, slots=True)
class State:
    """What of a recipe does not depend on its micro-batch."""

    counts: ParameterCounts
    resident: ResidentBytes
    step: StepBytes


@dataclass(frozen=True, slots=True)
class Planner:
    """What stays the same for all variants of a recipe.

    config: config.json of the base. engine_config: DeepSpeed's file; None: the usual one. link: between the
    ranks; None: the usual one.
    """

    config: Mapping[str, Any]
    vocabulary: VocabularySize
    target: Target
    ranks: int
    engine_config: Path | None
    link: Link | None = None
    _models: dict[tuple[Any, ...], AdaptedModel] = field(default_factory=dict)
    _states: dict[tuple[Any, ...], State] = field(default_factory=dict)
    _traces: dict[tuple[str, int], MicroBatchTrace] = field(default_factory=dict)
    _of_few_layers: dict[tuple[str, int], TracesOfFew] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        """Of the base."""
        return int(self.config["num_hidden_layers"])

    def estimate(self, recipe: Recipe) -> Estimate:
        """Memory of a recipe whose precision is decided; of `gradient_checkpointing: auto`, of what it comes
        to here.

        Raises:
            RecipeError: the engine's file contradicts the recipe.
        """
        asked, recipe = recipe, self.decided(recipe)
        train, on_gpu = recipe.train, self.target.gpu is not None
        sequences = min(train.micro_batch_size, math.ceil(train.global_batch_size / self.ranks))
        accumulation = gradient_accumulation_steps(
            train.global_batch_size, train.micro_batch_size, self.ranks
        )
        state = self.state(recipe)
        trace = self._trace(recipe, sequences, recipe.longest_seq_len)
        peak = device_peak(state.resident, state.step, trace, accumulation=accumulation, on_gpu=on_gpu)
        return Estimate(asked, recipe, state.counts, state.resident, trace, sequences, accumulation, peak)

    def model(self, recipe: Recipe, layers: int | None = None) -> AdaptedModel:
        """On the meta device, with as many new tokens as there may be, and all layers or some; made once."""
        train = recipe.train
        key = (
            train.precision,
            train.quantize,
            train.gradient_checkpointing,
            recipe.vocab.train_embeddings,
            recipe.adapter.layer_indices(layers or self.layers),
            layers or self.layers,
        )
        if key not in self._models:
            self._models[key] = self._made(recipe, layers)
        return self._models[key]

    def state(self, recipe: Recipe) -> State:
        """Weights and the bytes of what is trained; made once.

        Raises:
            RecipeError: the engine's file contradicts the recipe.
        """
        engine = backend()
        config = engine.resolve_config(self.engine_config or engine.default_config, recipe, self.ranks)
        key = (
            recipe.train.quantize,
            recipe.vocab.train_embeddings,
            recipe.adapter.layer_indices(self.layers),
        )
        if key not in self._states:
            model = self.model(recipe)
            device = "cpu" if self.target.gpu is None else "gpu"
            self._states[key] = State(
                parameter_counts(model),
                resident_bytes(model, self.ranks),
                step_bytes(model, config, self.ranks, device=device),
            )
        return self._states[key]

    def headroom(self, recipe: Recipe) -> int:
        """Bytes to spare on each rank; below 0 it does not fit. Of `gradient_checkpointing: auto`, those of
        the least that it can come to."""
        if recipe.train.gradient_checkpointing == "auto":
            recipe = recipe.with_recompute("full")
        return self.spare(self.estimate(recipe))

    def decided(self, recipe: Recipe) -> Recipe:
        """The recipe with `gradient_checkpointing: auto` decided for the target."""
        if recipe.train.gradient_checkpointing != "auto":
            return recipe
        setting = choose_recompute(lambda one: self.headroom(recipe.with_recompute(one)), self.layers)
        return recipe.with_recompute(setting)

    def spare(self, estimate: Estimate) -> int:
        """Bytes to spare by an estimate; with the reserve, which decides."""
        return self.target.usable_bytes - estimate.peak.with_reserve

    def forecast(self, estimate: Estimate, runs: Path | None = None) -> Forecast:
        """Time, energy and money.

        Args:
            runs: where earlier runs of this machine lie, whose speed counts where there are some.
        """
        gpu, counts, recipe = self.target.gpu, estimate.counts, estimate.recipe
        traces = {
            length: self._trace(recipe, estimate.sequences, length)
            for length in map(recipe.seq_len_of, recipe.stages)
        }
        measured = None if runs is None else find_measured(runs, gpu, recipe, counts.total, self.layers)
        return forecast(
            recipe,
            traced_flops_per_micro_batch={length: trace.flops for length, trace in traces.items()},
            traced_int8_flops={length: trace.int8_flops for length, trace in traces.items()},
            parameters=counts,
            layers=self.layers,
            gpu=gpu,
            ranks=self.ranks,
            added_vocab=self.vocabulary.high,
            measured=measured,
            link=self.link,
        )

    def _trace(self, recipe: Recipe, sequences: int, seq_len: int) -> MicroBatchTrace:
        """Of a micro-batch of this shape; made once."""
        key = (recipe.model_dump_json(), seq_len)
        if key not in self._traces:
            self._traces[key] = self._traced(recipe, sequences, seq_len)
        return self._traces[key]

    def _traced(self, recipe: Recipe, sequences: int, seq_len: int) -> MicroBatchTrace:
        train = recipe.train
        if train.precision == "fp32" and check_family(self.config, recipe.base).experts:
            # Without values torch multiplies experts in bf16 alone: all of it twice as wide, at the most.
            return self._trace(with_values(recipe, {"train.precision": "bf16"}), sequences, seq_len).doubled
        key = (recipe.with_recompute("auto").model_dump_json(), seq_len)
        has_varlen = self.target.gpu is not None and train.precision == "bf16" and train.attention != "sdpa"
        return trace_few_layers(
            lambda layers, setting, adapted: self.model(
                with_adapted_layers(recipe.with_recompute(setting), adapted), layers
            ),
            recipe,
            self.layers,
            sequences,
            seq_len,
            on_cpu=not has_varlen,
            known=self._of_few_layers.setdefault(key, {}),
        )

    def _made(self, recipe: Recipe, layers: int | None) -> AdaptedModel:
        config = self.config if layers is None else with_layers(self.config, layers)
        return meta_model(recipe, config, self.vocabulary.base, self.vocabulary.high)


def with_adapted_layers(recipe: Recipe, layers: list[int]) -> Recipe:
    """The recipe with adapters in these layers alone, of a model that may have fewer."""
    adapter = recipe.adapter.model_copy(update={"layers": layers})
    return recipe.model_copy(update={"adapter": adapter})


def with_values(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at `section.key` and `stages.N.key`."""
    tree = recipe.model_dump()
    for place, value in changes.items():
        *sections, key = place.split(".")
        node: Any = tree
        for name in sections:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[key] = value
    return Recipe.model_validate(tree)


def with_seq_len(recipe: Recipe, seq_len: int) -> Recipe:
    """The recipe with sequences of one length in all stages."""
    return with_values(recipe, dict.fromkeys(recipe.seq_len_keys(), seq_len))

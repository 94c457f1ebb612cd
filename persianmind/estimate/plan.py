"""What a recipe will need and cost, without a GPU and without weights: memory, disk, time, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persianmind.estimate import assumptions
from persianmind.estimate.bases import VocabularySize, base_config, vocabulary_size
from persianmind.estimate.disk import DiskBytes, disk_bytes
from persianmind.estimate.forecast import Forecast
from persianmind.estimate.host import HostBytes, host_bytes
from persianmind.estimate.links import find_link
from persianmind.estimate.planner import Estimate, Planner
from persianmind.estimate.static import flat_groups
from persianmind.estimate.target import choose_target, limited, with_precision
from persianmind.estimate.verdict import Largest, Suggestion, largest_that_fit, suggestions
from persianmind.model.adapted_layers import layers_in_words
from persianmind.model.families import EXPERTS_NOTE, Family, check_family
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder

RUNS = Path("runs")


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage. seq_len: of its sequences. steps, tokens: None where the recipe gives its length in epochs
    of data not built yet."""

    name: str
    sources: tuple[str, ...]
    trained: tuple[str, ...]
    epochs: dict[str, float] | None
    seq_len: int
    steps: int | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """Everything that `persianmind plan` says; `as_json` is its contract."""

    recipe: Recipe
    planner: Planner
    vocabulary: VocabularySize
    adapted: str
    estimate: Estimate
    stages: tuple[PlannedStage, ...]
    host: HostBytes
    disk: DiskBytes
    headroom_bytes: int
    forecast: Forecast
    suggestions: tuple[Suggestion, ...]

    @property
    def fits(self) -> bool:
        """Whether every rank has room, with the reserve."""
        return self.headroom_bytes >= 0

    def largest(self) -> Largest:
        """The largest micro-batch and sequences that would fit; takes longer than all the rest."""
        return largest_that_fit(self.planner, self.estimate)

    def as_json(self) -> dict[str, Any]:
        """Raw numbers: bytes, weights, seconds and hours as they are."""
        estimate, peak, counts = self.estimate, self.estimate.peak, self.estimate.counts
        target = self.planner.target
        return {
            "recipe": self.recipe.name,
            "base": self.recipe.base,
            "ranks": self.planner.ranks,
            "gpu": None if target.gpu is None else target.gpu.name,
            "usable_bytes": target.usable_bytes,
            "target": target.source,
            "adapted": self.adapted,
            "parameters": {**asdict(counts), "total": counts.total},
            "vocabulary": asdict(self.vocabulary),
            "batch": {
                "global_batch_size": self.recipe.train.global_batch_size,
                "micro_batch_size": estimate.sequences,
                "gradient_accumulation_steps": estimate.accumulation,
                "seq_len": self.recipe.longest_seq_len,
                "tokens_per_step": self.recipe.train.global_batch_size * self.recipe.longest_seq_len,
            },
            "stages": [asdict(stage) for stage in self.stages],
            "bytes": dict(peak.bytes),
            "peak_phase": peak.phase,
            "phase_bytes": dict(peak.phases),
            "largest_tensor": {"name": estimate.trace.largest, "bytes": estimate.trace.largest_bytes},
            "peak_bytes": peak.allocated,
            "reserve_bytes": asdict(peak.reserve),
            "peak_with_reserve_bytes": peak.with_reserve,
            "decides": "peak_with_reserve_bytes",
            "gradient_checkpointing": estimate.recipe.model_dump(mode="json")["train"][
                "gradient_checkpointing"
            ],
            "flops_per_micro_batch": estimate.trace.flops,
            "host_peak_bytes": self.host.peak,
            "host_bytes": asdict(self.host),
            "disk_bytes": {**asdict(self.disk), "run": self.disk.run},
            "fits": self.fits,
            "headroom_bytes": self.headroom_bytes,
            "largest": asdict(self.largest()),
            "forecast": asdict(self.forecast),
            "suggestions": [asdict(one) for one in self.suggestions],
            "assumptions": assumptions.as_json(),
        }


def estimate_recipe(name: str, overrides: Sequence[str], ranks: int, **options: Any) -> RecipePlan:
    """Plans a recipe by its name or file; see `plan_recipe`.

    Raises:
        RecipeError: the recipe is not usable.
    """
    return plan_recipe(load_recipe(name, overrides), ranks, **options)


def plan_recipe(
    recipe: Recipe,
    ranks: int,
    *,
    gpu: str | None = None,
    memory_gb: float | None = None,
    engine_config: Path | None = None,
    link: str | None = None,
    runs: Path = RUNS,
) -> RecipePlan:
    """Plans a recipe on `ranks` ranks.

    Args:
        gpu, memory_gb: of each rank; see `target.choose_target`. memory_gb stands before the recipe's.
        engine_config: DeepSpeed's JSON; None: the usual one.
        link: between the ranks, by its name (`links.LINKS`); None: PCIe 3 x8.
        runs: where runs lie: the vocabulary of this recipe's own, and speeds of earlier ones.

    Raises:
        RecipeError: the engine's JSON contradicts the recipe, or the base has not the layers of
            `adapter.layers`.
        BaseModelError: the architecture of the base is not known here, or cannot be trained.
        UsageError: the GPU or the link is not known, or multiplies another precision.
    """
    config = base_config(recipe.base)
    family = check_family(config, recipe.base, recipe.train.quantize)
    vocabulary = vocabulary_size(recipe, config, RunFolder(runs / recipe.name))
    target = choose_target(gpu, memory_gb, _rough_weights(config), ranks)
    if memory_gb is None:
        target = limited(target, recipe)
    recipe = with_precision(recipe, target)
    planner = Planner(
        config, vocabulary, target, ranks, engine_config, None if link is None else find_link(link)
    )
    estimate = planner.estimate(recipe)
    spare, counts = planner.spare(estimate), estimate.counts
    vocab_size = vocabulary.base + vocabulary.high
    model = planner.model(recipe)
    return RecipePlan(
        recipe=recipe,
        planner=planner,
        vocabulary=vocabulary,
        adapted=_adapted(recipe, family, planner.layers),
        estimate=estimate,
        stages=tuple(_stages(recipe)),
        host=host_bytes(recipe, model, flat_groups(model, ranks), ranks, vocab_size),
        disk=disk_bytes(recipe, trained=counts.trained, exported=counts.total, vocab_size=vocab_size),
        headroom_bytes=spare,
        forecast=planner.forecast(estimate, runs),
        suggestions=tuple(suggestions(planner, estimate)) if spare < 0 else (),
    )


def _stages(recipe: Recipe) -> list[PlannedStage]:
    planned = []
    for stage in recipe.stages:
        steps = recipe.steps_of(stage)
        planned.append(
            PlannedStage(
                stage.name,
                tuple(stage.sources),
                tuple(stage.trained),
                None if stage.passes is None else dict([stage.passes]),
                recipe.seq_len_of(stage),
                steps,
                None if steps is None else steps * recipe.tokens_per_step(stage),
            )
        )
    return planned


def _adapted(recipe: Recipe, family: Family, layers: int) -> str:
    """Where adapters go, in words."""
    targets = recipe.adapter.targets
    if targets != "all-linear":
        modules = ", ".join(targets)
    else:
        modules = EXPERTS_NOTE if family.experts else "all linear projections"
    where = layers_in_words(recipe, layers)
    return f"{modules}; {where}" if where else modules


def _rough_weights(config: dict[str, Any]) -> int:
    """Of the layers of a plain decoder, which is enough to tell a base for CPUs from one that is not."""
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    inner = int(config.get("intermediate_size") or 4 * hidden)
    return layers * (4 * hidden * hidden + 3 * hidden * inner)

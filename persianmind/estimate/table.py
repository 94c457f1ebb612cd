"""A plan for people: names and units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from persianmind.common.units import size_text
from persianmind.estimate import assumptions
from persianmind.estimate.forecast import Forecast
from persianmind.estimate.plan import PlannedStage, RecipePlan
from persianmind.estimate.recompute import in_words
from persianmind.recipe import Recipe

Row = tuple[str, str]
NAMES = {
    "base": "base weights",
    "new_embeddings": "new embeddings",
    "adapters": "adapters",
    "flat_padding": "padding of ZeRO's flat groups",
    "masters": "fp32 masters, this rank's part",
    "moments": "Adam's moments, this rank's part",
    "buffers": "buffers of the model",
    "cublas_workspace": "cuBLAS workspace",
    "fp32_accumulators": "fp32 sums of gradients",
    "activations": "activations and temporaries",
    "gradients": "gradients",
    "reduce_buckets": "DeepSpeed's buckets",
    "reduce_copies": "copies of the exchange",
    "gradient_partition": "reduced gradients, this rank's part",
    "update_temporaries": "temporaries of norm, clipping and AdamW",
}
MOMENTS = {"micro_batch": "a micro-batch", "exchange": "the exchange", "update": "the update"}


def sections(plan: RecipePlan) -> Iterator[tuple[str, list[Row]]]:
    """(title, rows) of each table."""
    yield f"{plan.recipe.name} on {plan.planner.ranks} x {plan.planner.target.name}", _model_rows(plan)
    yield "stages", [(stage.name, _stage(stage)) for stage in plan.stages]
    yield f"memory per rank, at its highest: {MOMENTS[plan.estimate.peak.phase]}", _memory_rows(plan)
    yield "host and disk", _machine_rows(plan)
    yield "time, energy, money", _forecast_rows(plan)
    yield (
        "taken as given",
        [*assumptions.sentences(), *(("forecast", one) for one in plan.forecast.assumptions)],
    )


def verdict_lines(plan: RecipePlan) -> Iterator[str]:
    """Whether it fits, and what would."""
    peak, usable = plan.estimate.peak, plan.planner.target.usable_bytes
    on_each = f"{size_text(usable)} usable on each {plan.planner.target.name}"
    needed = f"{size_text(peak.with_reserve)} with reserve of {on_each}"
    if plan.fits:
        yield f"fits: {needed}, {size_text(plan.headroom_bytes)} to spare"
    else:
        yield f"does not fit: {needed}, {size_text(-plan.headroom_bytes)} too much"
    largest = plan.largest()
    yield (
        "largest that fits, everything else as it is: "
        f"micro_batch_size {largest.micro_batch_size or 'none'}, seq_len {largest.seq_len or 'none'}"
    )
    for one in plan.suggestions:
        yield (
            f"would fit: {' '.join(one.overrides)}  ({size_text(one.headroom_bytes)} to spare, time x "
            f"{one.time_ratio:.2f}, {one.hours:,.1f} h)"
        )
    if not plan.fits and not plan.suggestions:
        yield "nothing that can be set here makes it fit: take a smaller base, a larger GPU or more --ranks"


def _model_rows(plan: RecipePlan) -> list[Row]:
    counts, vocabulary, estimate = plan.estimate.counts, plan.vocabulary, plan.estimate
    added = f"{vocabulary.high:,}"
    if vocabulary.low != vocabulary.high:
        added = f"{vocabulary.low:,} to {vocabulary.high:,}, planned with the most"
    return [
        ("planned for", plan.planner.target.source),
        ("base", plan.recipe.base),
        ("vocabulary", f"{vocabulary.base:,} ids, {added} new ({vocabulary.source})"),
        ("parameters", f"{counts.total:,}: base {counts.base:,}, new embeddings {counts.added:,}"),
        ("adapters", f"{counts.adapter:,} on {plan.adapted}"),
        ("trained", f"{counts.trained:,} ({counts.trained / (counts.total + counts.adapter):.2%})"),
        (
            "step",
            f"{plan.recipe.train.global_batch_size} sequences x {_lengths(plan.recipe)} tokens; "
            f"{estimate.sequences} x {estimate.accumulation} micro-batches per rank at most",
        ),
        ("recomputed", in_words(estimate.recipe.train.gradient_checkpointing, plan.planner.layers)),
    ]


def _lengths(recipe: Recipe) -> str:
    """Of the sequences of its stages; memory is planned for the longest."""
    return " or ".join(f"{length:,}" for length in dict.fromkeys(map(recipe.seq_len_of, recipe.stages)))


def _stage(stage: PlannedStage) -> str:
    what = f"{', '.join(stage.sources)}; trains {' and '.join(stage.trained)}"
    if stage.steps is None:
        length = ", ".join(f"{often:g} epochs of {name}" for name, often in (stage.epochs or {}).items())
        return f"{length}, as long as its text, not counted below; {what}"
    return f"{stage.steps:,} steps, {stage.tokens:,} tokens in sequences of {stage.seq_len:,}; {what}"


def _memory_rows(plan: RecipePlan) -> list[Row]:
    peak, trace = plan.estimate.peak, plan.estimate.trace
    rows = [(NAMES[kind], size_text(value)) for kind, value in peak.bytes.items() if value]
    rows.append(("largest single tensor", f"{size_text(trace.largest_bytes)}: {trace.largest}"))
    rows += [(f"in tensors during {MOMENTS[name]}", size_text(value)) for name, value in peak.phases.items()]
    reserve = peak.reserve
    rows += [
        ("allocated", size_text(peak.allocated)),
        ("CUDA context, NCCL", f"{size_text(reserve.cuda_context)}, {size_text(reserve.nccl)}"),
        ("kept by the allocator", size_text(reserve.fragments)),
        ("with reserve (decides)", size_text(peak.with_reserve)),
    ]
    return rows


def _machine_rows(plan: RecipePlan) -> list[Row]:
    host, disk = plan.host, plan.disk
    return [
        ("host memory while loading", size_text(host.loading)),
        ("host memory while training", size_text(host.training)),
        ("host memory while exporting", size_text(host.export)),
        ("download of the base", "not known" if disk.download is None else size_text(disk.download)),
        ("token shards", size_text(disk.shards)),
        ("checkpoints", size_text(disk.checkpoints)),
        ("export", size_text(disk.export)),
        ("run folder in all", size_text(disk.run)),
    ]


def _forecast_rows(plan: RecipePlan) -> list[Row]:
    one = plan.forecast
    rows = [
        (
            "speed",
            f"{one.tokens_per_s:,.0f} tokens/s ({one.high.tokens_per_s:,.0f} to {one.low.tokens_per_s:,.0f})",
        ),
        ("time", f"{one.hours:,.2f} h ({one.low.hours:,.2f} to {one.high.hours:,.2f})"),
        ("energy", f"{one.kwh:,.3g} kWh ({one.low.kwh:,.3g} to {one.high.kwh:,.3g})"),
        ("CO2", _co2_text(one)),
    ]
    if one.price is not None:
        rows.append(("price", f"{one.price:,.2f} {one.currency}"))
    return rows + [("beside it", _reference(line)) for line in one.references]


def _co2_text(one: Forecast) -> str:
    span = f"{one.co2_low_kg:,.3g} to {one.co2_high_kg:,.3g}"
    if one.co2_kg is not None:
        return f"{one.co2_kg:,.3g} kg ({span})"
    return f"{span} kg, on the cleanest to the dirtiest country's grid: its own is not known"


def _reference(line: Mapping[str, Any]) -> str:
    figures = {
        "tokens/s per GPU": line["tokens_per_s_per_gpu"],
        "GPU-hours": line["gpu_hours"],
        "kg CO2": line["co2_kg"],
    }
    known = ", ".join(f"{value:,} {unit}" for unit, value in figures.items() if value is not None)
    return f"{line['name']}: {known} ({line['source']})"

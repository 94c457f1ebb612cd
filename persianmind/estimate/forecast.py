"""Time, energy, CO2 and money of a run that was not begun, from the FLOPs of its traced micro-batch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from persianmind.common.errors import EnergyError
from persianmind.energy.co2.intensity import lowest_and_highest, resolve_intensity
from persianmind.energy.meter.hardware import JOULES_PER_KWH
from persianmind.estimate.gpus import GpuSpec
from persianmind.estimate.job import (
    CountedWeights,
    PlannedJob,
    held_out_tokens,
    job_phases,
    tokens_per_second,
)
from persianmind.estimate.links import DEFAULT_LINK, Link, find_link
from persianmind.estimate.measured import MeasuredRun
from persianmind.estimate.phases import DISK_BYTES_PER_S, Phases
from persianmind.recipe import Energy, Recipe

# The part of a GPU's peak that a step gets, recomputed FLOPs counted as work: from what the PersianMind run
# took (579 tokens/s per RTX 3090) to the best public figure for the same job (1,190).
# tests/estimate/test_forecast.py derives both from the FLOPs of Llama-2-7B.
LEAST_UTILISATION, MOST_UTILISATION = 0.34, 0.70
# GPUs this fast wait for the host to launch kernels where a micro-batch is one sequence: an H100 got 4,339
# tokens/s of Llama-2-7B with full recompute (docs/gpus.md).
FAST_GPU_FLOPS, LEAST_UTILISATION_OF_FAST = 250e12, 0.18
MEASURED_SPREAD = 0.15  # around what an earlier run of this machine got
# Without a GPU: per core, fp32 or bf16; a demo run on two cores got 93 GFLOP/s. And a machine's power.
LEAST_CORE_FLOPS, MOST_CORE_FLOPS = 15e9, 100e9
CPU_POWER_W = 65.0
# What is known of the same job elsewhere; nothing else is the paper's.
REFERENCES: tuple[dict[str, Any], ...] = (
    {
        "name": "PersianMind (4 x RTX 3090)",
        "gpu_hours": 960,
        "co2_kg": 232.38,
        "tokens_per_s_per_gpu": 579,
        "source": "arXiv 2401.06466 and model card; tokens/s is our inference: 2e9 tokens / 960 GPU-hours",
    },
    {
        "name": "fsdp_qlora, Llama-2-7B LoRA, 2,048 tokens, 2 x RTX 3090 at 280 W",
        "gpu_hours": None,
        "co2_kg": None,
        "tokens_per_s_per_gpu": 1190,
        "source": "AnswerDotAI/fsdp_qlora, benchmarks_03_2024.md: 1,024 x 2,048 tokens in 881 s",
    },
)


@dataclass(frozen=True, slots=True)
class ForecastCase:
    """One end of the range, or its middle. kwh: with the building's PUE."""

    tokens_per_s: float
    hours: float
    kwh: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take.

    tokens_per_s: packed positions of all ranks while training. hours: of the whole run, its evaluations,
    samples, checkpoints and export included. kwh: with PUE. co2_kg: None where the recipe states no country
    and no intensity; co2_low_kg and co2_high_kg then span all countries. price: None without
    `energy.price_per_kwh`. low and
    high: the cheapest and the dearest case of the range. phases: seconds by what they are spent on. tokens:
    of the stages that are counted. references: the same job elsewhere.
    """

    tokens_per_s: float
    hours: float
    kwh: float
    co2_kg: float | None
    co2_low_kg: float
    co2_high_kg: float
    price: float | None
    currency: str
    low: ForecastCase
    high: ForecastCase
    phases: Phases
    tokens: int
    assumptions: tuple[str, ...]
    references: tuple[dict[str, Any], ...] = REFERENCES


def forecast(
    recipe: Recipe,
    *,
    traced_flops_per_micro_batch: Mapping[int, float],
    traced_int8_flops: Mapping[int, float] | None = None,
    parameters: CountedWeights,
    layers: int,
    gpu: GpuSpec | None,
    ranks: int,
    added_vocab: int,
    measured: MeasuredRun | None = None,
    link: Link | None = None,
) -> Forecast:
    """Time, energy, CO2 and price of the stages whose length the recipe states in tokens.

    Args:
        traced_flops_per_micro_batch: forward, recomputation and backward of a full micro-batch on one rank,
            by the sequence length of each stage.
        traced_int8_flops: of these, of matmuls with an int8 base; None: no base is.
        parameters: of the adapted model.
        layers: of its decoder.
        gpu: of each rank; None: the CPU of this machine, which all ranks share.
        added_vocab: new tokens, of which the held-out text needs fewer.
        measured: an earlier run on the same GPUs (`measured.find_measured`).
        link: between the ranks; None: PCIe 3 x8.

    Raises:
        UsageError: the GPU cannot multiply the recipe's precision.
        EnergyError: codecarbon's table of countries is missing.
    """
    job = PlannedJob(
        recipe,
        traced_flops_per_micro_batch,
        traced_int8_flops or {},
        parameters,
        layers,
        gpu,
        ranks,
        link or find_link(DEFAULT_LINK),
        is_measured=measured is not None,
    )
    slow, middle, fast = _speeds(job, measured)
    power_w = _power_w(gpu, ranks, measured)
    beside_s = None if measured is None or measured.recipe != recipe.name else measured.beside_s
    low, chosen, high = (_case(job, speed, power_w, beside_s) for speed in (fast, middle, slow))
    grid = _grid(recipe.energy)
    price = recipe.energy.price_per_kwh
    return Forecast(
        tokens_per_s=chosen.tokens_per_s,
        hours=chosen.hours,
        kwh=chosen.kwh,
        co2_kg=None if grid.g_per_kwh is None else chosen.kwh * grid.g_per_kwh / 1000,
        co2_low_kg=low.kwh * grid.low / 1000,
        co2_high_kg=high.kwh * grid.high / 1000,
        price=None if price is None else chosen.kwh * price,
        currency=recipe.energy.currency,
        low=low,
        high=high,
        phases=job_phases(job, middle),
        tokens=job.tokens,
        assumptions=(
            *_assumptions(job, measured, power_w, beside_s, added_vocab),
            f"CO2: {_grams(grid)} g/kWh, {grid.source}",
        ),
    )


def _speeds(job: PlannedJob, measured: MeasuredRun | None) -> tuple[float, float, float]:
    """FLOP/s of one rank: least, likely, most."""
    shared = 1 if job.gpu is not None else job.ranks  # the ranks of a CPU share it
    if measured is not None:
        speed = measured.flops_per_s / shared
        return speed / (1 + MEASURED_SPREAD), speed, speed * (1 + MEASURED_SPREAD)
    if job.gpu is None:
        cores = len(os.sched_getaffinity(0))
        least, most = LEAST_CORE_FLOPS * cores / shared, MOST_CORE_FLOPS * cores / shared
    else:
        least, most = _least_utilisation(job) * job.peak_flops, MOST_UTILISATION * job.peak_flops
    return least, math.sqrt(least * most), most


def _least_utilisation(job: PlannedJob) -> float:
    return LEAST_UTILISATION_OF_FAST if job.peak_flops >= FAST_GPU_FLOPS else LEAST_UTILISATION


def _case(job: PlannedJob, flops: float, power_w: float, beside_s: float | None) -> ForecastCase:
    """Hours and energy where each rank does `flops` per second."""
    phases = job_phases(job, flops)
    seconds = phases.total_s if beside_s is None else phases.steps_s + beside_s
    kwh = power_w * seconds / JOULES_PER_KWH * job.recipe.energy.pue
    return ForecastCase(tokens_per_second(job, flops), seconds / 3600, kwh)


def _power_w(gpu: GpuSpec | None, ranks: int, measured: MeasuredRun | None) -> float:
    """Of all ranks together."""
    if gpu is not None:
        return gpu.power_w * ranks
    return measured.watts if measured is not None and measured.watts is not None else CPU_POWER_W


@dataclass(frozen=True, slots=True)
class _Grid:
    """Grams per kWh: of the recipe's grid, and of the cheapest and the dearest case. source: where they
    stand."""

    g_per_kwh: float | None
    low: float
    high: float
    source: str


def _grid(energy: Energy) -> _Grid:
    """A recipe that states neither country nor intensity could run anywhere: the range is that of all
    countries."""
    reason = "the recipe states neither energy.country_iso nor energy.intensity_g_per_kwh"
    try:
        if (stated := resolve_intensity(energy)) is not None:
            return _Grid(stated.g_per_kwh, stated.g_per_kwh, stated.g_per_kwh, stated.source)
    except EnergyError as error:
        reason = str(error)
    lowest, highest = lowest_and_highest()
    return _Grid(
        None, lowest.g_per_kwh, highest.g_per_kwh, f"{lowest.source} to {highest.source}, because {reason}"
    )


def _grams(grid: _Grid) -> str:
    return f"{grid.low:g}" if grid.g_per_kwh is not None else f"{grid.low:g} to {grid.high:g}"


def _assumptions(
    job: PlannedJob, measured: MeasuredRun | None, power_w: float, beside_s: float | None, added_vocab: int
) -> Iterator[str]:
    """Everything that was taken for granted, a line each."""
    recipe = job.recipe
    yield f"speed: {_speed_source(job, measured)}"
    if any(job.int8_flops_per_micro_batch.values()) and measured is None:
        yield f"int8: matmuls over the base {job.int8_speedup:.1f} times as fast as others, a guess"
    if job.ranks > 1 and job.gpu is not None:
        yield f"link: {job.link.name}, {job.link.bytes_per_s / 1e9:.1f} GB/s in practice, nothing hidden"
    whose = "of all boards, their rating, at all times" if job.gpu is not None else "of this machine"
    yield f"energy: {power_w:.0f} W {whose}, x PUE {recipe.energy.pue:g}"
    if measured is not None and beside_s is not None:
        yield f"beside the steps: {beside_s:.0f} s, as measured in {measured.path}"
    else:
        yield (
            f"beside the steps: weights at {DISK_BYTES_PER_S / 1e6:.0f} MB/s, {held_out_tokens(recipe):,.0f} "
            f"tokens per evaluation, {added_vocab:,} new tokens; preparing a large corpus takes longer"
        )
    if uncounted := [stage.name for stage in recipe.stages if stage.passes is not None]:
        yield (
            f"not counted: the steps of {', '.join(uncounted)}, given in epochs; known once their data is "
            "built"
        )


def _speed_source(job: PlannedJob, measured: MeasuredRun | None) -> str:
    if measured is not None:
        return f"as measured in {measured.path}, +-{MEASURED_SPREAD:.0%}"
    if job.gpu is None:
        least, most = LEAST_CORE_FLOPS / 1e9, MOST_CORE_FLOPS / 1e9
        return f"{least:.0f} to {most:.0f} GFLOP/s per core of this machine's CPU; give --gpu for a GPU"
    least = _least_utilisation(job)
    seen = (
        "what the PersianMind run got" if least == LEAST_UTILISATION else "what an H100 got at micro-batch 1"
    )
    return (
        f"{least:.0%} to {MOST_UTILISATION:.0%} of {job.peak_flops / 1e12:.1f} TFLOP/s "
        f"({job.precision}, {job.gpu.source}), recomputation counted as work: {seen} "
        "and what the best public run got from an RTX 3090"
    )

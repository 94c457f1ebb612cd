"""A run that was not begun, and its seconds at a given speed of its ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from persianmind.common.errors import UsageError
from persianmind.estimate.gpus import GpuSpec
from persianmind.estimate.int8 import int8_speedup
from persianmind.estimate.links import Link, exchange_s
from persianmind.estimate.memory import OPTIMIZER_BYTES, WEIGHT_BYTES
from persianmind.estimate.phases import DISK_BYTES_PER_S, Phases, run_phases
from persianmind.estimate.time import step_over_forward
from persianmind.recipe import Recipe

CPU_BANDWIDTH = 10e9  # bytes/s that the ranks of a CPU share
DEQUANTISED_BYTES = 0.5 + 2.0  # of an nf4 weight at each pass: read packed, written in bf16
BUCKET_ELEMENTS = 20_000_000  # ds_configs/zero2.json
TOKENS_PER_CHARACTER = 0.5  # of held-out text in another script, before and after the expansion; English less
LAUNCH_S = 0.010  # of a generated token: its kernels are launched one by one


class CountedWeights(Protocol):
    """Numbers of weights: of the base, of new embeddings, and of all that is trained."""

    @property
    def base(self) -> int: ...
    @property
    def added(self) -> int: ...
    @property
    def trained(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What a forecast is made for.

    flops_per_micro_batch: by the sequence length of each stage, forward, recomputation and backward of a full
    one on one rank; int8_flops_per_micro_batch: of these, of matmuls with an int8 base. layers: of the base.
    gpu: of each rank; None: the CPU of this machine, which all ranks share. is_measured: its speed is that of
    an earlier run, over such a base where there is one.
    """

    recipe: Recipe
    flops_per_micro_batch: Mapping[int, float]
    int8_flops_per_micro_batch: Mapping[int, float]
    parameters: CountedWeights
    layers: int
    gpu: GpuSpec | None
    ranks: int
    link: Link
    is_measured: bool = False

    @property
    def steps(self) -> int:
        """Of the stages whose length the recipe states in tokens."""
        return sum(self.recipe.steps_of(stage) or 0 for stage in self.recipe.stages)

    @property
    def tokens(self) -> int:
        """Packed positions of these steps."""
        recipe = self.recipe
        return sum((recipe.steps_of(stage) or 0) * recipe.tokens_per_step(stage) for stage in recipe.stages)

    @property
    def precision(self) -> str:
        """As a run decides it where the recipe leaves it open."""
        if self.recipe.train.precision != "auto":
            return self.recipe.train.precision
        return "bf16" if self.gpu is not None and "bf16" in self.gpu.peak_flops else "fp32"

    @property
    def peak_flops(self) -> float:
        """Of one GPU.

        Raises:
            UsageError: it has no matmul of this precision.
        """
        assert self.gpu is not None
        if (peak := self.gpu.peak_flops.get(self.precision)) is None:
            raise UsageError(
                f"{self.gpu.name} multiplies no {self.precision}; give train.precision=fp32, or another --gpu"
            )
        return peak

    @property
    def int8_speedup(self) -> float:
        """Of matmuls with an int8 base, over the speed of the run."""
        return 1.0 if self.is_measured else int8_speedup(self.gpu, self.precision)

    @property
    def bandwidth(self) -> float:
        """Of the memory that weights are read from, bytes/s."""
        return CPU_BANDWIDTH if self.gpu is None else self.gpu.bandwidth

    @property
    def weight_bytes(self) -> int:
        """Of the base as its files hold it, 16 bits."""
        return 2 * (self.parameters.base + self.parameters.added)

    @property
    def trained_bytes(self) -> int:
        """Of one trained weight, or its gradient, as it is sent."""
        return WEIGHT_BYTES[self.precision]


def job_phases(job: PlannedJob, flops: float) -> Phases:
    """Seconds of the whole run where each rank does `flops` per second."""
    recipe = job.recipe
    first = recipe.seq_len_of(recipe.stages[0])  # of the self-tests
    micro_batch_s, _ = step_seconds(job, flops, first)
    steps_s = [
        (recipe.steps_of(stage) or 0) * step_seconds(job, flops, recipe.seq_len_of(stage))[1]
        for stage in recipe.stages
    ]
    passes = step_over_forward(recipe, job.layers)
    tokens = recipe.train.micro_batch_size * first
    return run_phases(
        recipe,
        steps_s=sum(steps_s),
        steps=job.steps,
        micro_batch_s=micro_batch_s,
        rank_token_s=micro_batch_s / passes / tokens,
        ranks=job.ranks,
        held_out_tokens=held_out_tokens(recipe),
        generated_token_s=LAUNCH_S + 2 * job.weight_bytes / job.bandwidth,
        weight_bytes=job.weight_bytes,
        bytes_per_s=DISK_BYTES_PER_S,
    )


def tokens_per_second(job: PlannedJob, flops: float) -> float:
    """Packed positions of all ranks while they train, over all stages whose length is stated; of the first
    where none is."""
    if job.steps:
        return job.tokens / job_phases(job, flops).steps_s
    first = job.recipe.stages[0]
    return job.recipe.tokens_per_step(first) / step_seconds(job, flops, job.recipe.seq_len_of(first))[1]


def step_seconds(job: PlannedJob, flops: float, seq_len: int) -> tuple[float, float]:
    """(one full micro-batch, one optimizer step) of the rank with the most sequences, at one sequence
    length."""
    recipe, trained = job.recipe, job.parameters.trained
    saved = job.int8_flops_per_micro_batch.get(seq_len, 0.0) * (1 - 1 / job.int8_speedup)
    micro_batch_s = (job.flops_per_micro_batch[seq_len] - saved) / flops
    if recipe.train.quantize == "nf4":
        passes = step_over_forward(recipe, job.layers)
        micro_batch_s += passes * job.parameters.base * DEQUANTISED_BYTES / job.bandwidth
    per_rank = math.ceil(recipe.train.global_batch_size / job.ranks)
    update_s = 2 * trained * OPTIMIZER_BYTES / job.ranks / job.bandwidth
    sent = job.trained_bytes
    exchanged_s = exchange_s(job.link, trained, sent, sent, job.ranks, BUCKET_ELEMENTS)
    return micro_batch_s, per_rank * micro_batch_s / recipe.train.micro_batch_size + update_s + exchanged_s


def held_out_tokens(recipe: Recipe) -> float:
    """What one evaluation scores, at most."""
    return len(recipe.held_out_languages()) * recipe.heldout.max_characters * TOKENS_PER_CHARACTER

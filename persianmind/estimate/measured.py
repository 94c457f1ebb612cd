"""What earlier runs of this machine say of its speed: metrics.jsonl and the energy account of run folders."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from persianmind.common.errors import PersianMindError
from persianmind.energy.ledger import Ledger, read_ledger
from persianmind.energy.machines import gpu_names
from persianmind.estimate.gpus import Gpu, known_gpu
from persianmind.estimate.time import recomputed_ratio
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, read_steps
from persianmind.run.records import Phase, StepRecord

LEAST_STEPS = 5  # the first of a stage waits for data and compiles


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run.

    flops_per_s: that its steps did, recomputation included: per GPU, or of the whole machine without one.
    watts: of all that was counted while it trained, all nodes. beside_s: seconds of a finished run's other
    phases together.
    """

    path: str
    recipe: str
    flops_per_s: float
    watts: float | None
    beside_s: float | None


def find_measured(runs: Path, gpu: Gpu | None, recipe: Recipe) -> MeasuredRun | None:
    """The newest run in the folder `runs` that was made on such GPUs (None: on this machine's CPU) and has
    steps enough; one of the same recipe before others. Folders that cannot be read are none."""
    folders = sorted(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [one for path in folders if (one := _measure(RunFolder(path.parent), gpu)) is not None]
    return min(found, key=lambda one: one.recipe != recipe.name, default=None)


def _measure(folder: RunFolder, gpu: Gpu | None) -> MeasuredRun | None:
    try:
        recipe, ledger = load_recipe(str(folder.recipe)), read_ledger(folder)
        steps, results = list(read_steps(folder)), read_results(folder)
    except PersianMindError:
        return None
    steady = [step for step in steps if step.stage_step > 1]
    if len(steady) < LEAST_STEPS or not _is_of(ledger, gpu):
        return None
    passes = 2.0 + recomputed_ratio(recipe)
    if gpu is None:
        if results.model is None:
            return None
        weights, trained = results.model.parameters, results.model.trained_parameters
        speed = median(step.tokens_per_s for step in steady) * (2 * passes * weights + 2 * trained)
    else:
        used = [step.mfu for step in steady if step.mfu is not None]
        peak = gpu.peak_flops.get(recipe.train.precision)
        if not used or peak is None:
            return None
        speed = median(used) * peak * passes / 2
    beside = sum(_other_seconds(ledger)) if results.finished else None
    return MeasuredRun(str(folder), recipe.name, speed, _watts(ledger, steady), beside)


def _is_of(ledger: Ledger, gpu: Gpu | None) -> bool:
    names = gpu_names(ledger)
    if gpu is None:
        return not names and ledger.nodes == [platform.node()]
    return bool(names) and all(known_gpu(name) is gpu for name in names)


def _other_seconds(ledger: Ledger) -> Iterator[float]:
    """Of the first node, every phase but the steps."""
    first = ledger.nodes[:1]
    for attempt in ledger.attempts:
        if [attempt.node] == first:
            yield from (one.seconds for one in attempt.samples if one.phase is not Phase.TRAIN)


def _watts(ledger: Ledger, steps: list[StepRecord]) -> float | None:
    joules = sum(sample.joules for sample in ledger.samples if sample.phase is Phase.TRAIN)
    seconds = sum(step.seconds for step in steps)
    return joules / seconds if joules and seconds else None

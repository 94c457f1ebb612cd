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
from persianmind.estimate.gpus import GpuSpec, known_gpu
from persianmind.estimate.time import recomputed_ratio, step_over_forward
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import decided_recipe, read_results, read_steps
from persianmind.run.records import Phase, StepRecord

LEAST_STEPS = 5  # the first of a stage waits for data and compiles
ALIKE = 4.0  # a model within this factor of the planned one's weights keeps a GPU about as busy


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


def find_measured(
    runs: Path, gpu: GpuSpec | None, recipe: Recipe, weights: int, layers: int
) -> MeasuredRun | None:
    """The newest run in the folder `runs` on such GPUs (None: on this CPU), with steps enough, of the same
    recipe or else of a model about as large, both over an int8 base or neither. Folders that cannot be read
    are none.

    Args:
        weights, layers: of the planned model.
    """
    folders = sorted(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [
        one for path in folders if (one := _measure(RunFolder(path.parent), gpu, recipe, weights, layers))
    ]
    return min(found, key=lambda one: one.recipe != recipe.name, default=None)


def _measure(
    folder: RunFolder, gpu: GpuSpec | None, planned: Recipe, weights: int, layers: int
) -> MeasuredRun | None:
    try:
        recipe, ledger = decided_recipe(read_run_recipe(folder.recipe), folder), read_ledger(folder)
        steps, results = list(read_steps(folder)), read_results(folder)
    except PersianMindError:
        return None
    steady = [step for step in steps if step.stage_step > 1]
    size = results.model
    is_alike = size is not None and weights / ALIKE <= size.parameters <= weights * ALIKE
    if len(steady) < LEAST_STEPS or not _is_of(ledger, gpu) or not (is_alike or recipe.name == planned.name):
        return None
    if recipe.train.gradient_checkpointing == "auto":  # its results.json was lost
        return None
    if (recipe.train.quantize == "int8") != (planned.train.quantize == "int8"):
        return None
    passes = step_over_forward(recipe, layers)
    counted = passes - recomputed_ratio(recipe, layers)  # by MFU, which knows no recomputation
    if gpu is not None:
        used = [step.mfu for step in steady if step.mfu is not None]
        peak = gpu.peak_flops.get(recipe.train.precision)
        speed = None if not used or peak is None else median(used) * peak * passes / counted
    else:  # a CPU has no peak to be a part of
        per_token = 0 if size is None else 2 * passes * size.parameters + 2 * size.trained_parameters
        speed = median(step.tokens_per_s for step in steady) * per_token or None
    if speed is None:
        return None
    beside = sum(_other_seconds(ledger)) if results.finished else None
    return MeasuredRun(str(folder), recipe.name, speed, _watts(ledger, steady), beside)


def _is_of(ledger: Ledger, gpu: GpuSpec | None) -> bool:
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

"""Putting the parts of one run together on one rank: model, data, engine, and what watches them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import RunInterruptedError
from persianmind.energy.budget import Budget
from persianmind.energy.meter.client import EnergyMeter
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe
from persianmind.run.log import RunLog
from persianmind.run.trackers import make_trackers
from persianmind.train.prepare import Prepared
from persianmind.train.progress import Progress

if TYPE_CHECKING:
    import torch

    from persianmind.data.read.dataset import TokenDataset
    from persianmind.model.adapted import AdaptedModel
    from persianmind.train.loop import Trainer


def assemble(
    recipe: Recipe,
    run: Path,
    config: dict[str, Any],
    ranks: Ranks,
    prepared: Prepared,
    meter: EnergyMeter | None,
    budget: Budget,
    stop: Callable[[], bool],
    beat: Callable[[], None],
) -> Trainer:
    """Builds everything, prints the arithmetic, runs the self-tests of a fresh run; all ranks together.

    Raises:
        SelfTestError: the run would not train what it says.
    """
    import torch

    from persianmind.data.read.barrier import DataBarrier
    from persianmind.engine.deepspeed.engine import Engine
    from persianmind.estimate.memory import describe_run
    from persianmind.model.adapted import attention_implementation, compile_layers
    from persianmind.train.evaluation import Evaluation
    from persianmind.train.history import History
    from persianmind.train.loop import Trainer, stage_data
    from persianmind.train.metrics import StepMetrics
    from persianmind.train.saving import RunCheckpoints
    from persianmind.train.selftest import run_self_tests
    from persianmind.train.stages import plan_stages

    torch.set_num_threads(recipe.train.threads_per_rank or _threads(ranks))
    torch.manual_seed(recipe.seed + ranks.rank)
    if meter is not None:
        meter.mark("start", 0)
    datasets = _datasets(run, prepared, stop, beat)
    plans = plan_stages(recipe, prepared.sequences_by_source)
    progress = Progress(active=ranks.rank == 0, steps=plans[-1].last_step)
    device = _device(ranks)
    model = _build_model(recipe, run, ranks).to(device)
    if recipe.train.attention != attention_implementation(recipe.train.attention):
        progress.say("attention: flash-attn cannot run here; sdpa is used instead")
    if recipe.train.compile:
        progress.say("compile: the first steps are slow")
        compile_layers(model)
    for line in describe_run(recipe, plans, model, ranks.world_size):
        progress.say(line)
    if recipe.train.self_tests and not any((run / "checkpoints").glob("step-*")):
        first_stage = stage_data(recipe, plans[0], datasets)
        if missing := first_stage.missing(range(ranks.world_size)):
            progress.say(f"data: waiting for the first sequences of {missing}")
        sequences = [first_stage.batch([sample]) for sample in range(ranks.world_size)]
        run_self_tests(model, config, ranks, sequences, device, progress.say)
    engine = Engine(model, config, ranks)
    engine.beat = beat
    return Trainer(
        recipe=recipe,
        engine=engine,
        plans=plans,
        datasets=datasets,
        checkpoints=RunCheckpoints(recipe, run, engine, prepared, progress.say),
        evaluation=Evaluation(recipe, run, engine, progress.say),
        log=_run_log(recipe, run, ranks),
        metrics=StepMetrics(recipe, engine),
        history=History(recipe.train, recipe.stages),
        progress=progress,
        gate=DataBarrier(datasets, engine.count_over_ranks, progress.say, beat),
        meter=meter,
        stop_requested=stop,
        budget=budget,
    )


def _datasets(
    run: Path, prepared: Prepared, stop: Callable[[], bool], beat: Callable[[], None]
) -> dict[str, TokenDataset]:
    """What is built by now, and will be."""
    from persianmind.data.manifest import Fingerprints
    from persianmind.data.read.incremental import IncrementalDataset

    def while_waiting() -> None:
        beat()
        if stop():
            raise RunInterruptedError(
                "stopped while the first sequences were being built; run the same command to go on"
            )

    return {
        name: IncrementalDataset(
            run / "data" / name, Fingerprints.model_validate(fingerprints), while_waiting
        )
        for name, fingerprints in prepared.fingerprints.items()
    }


def _run_log(recipe: Recipe, run: Path, ranks: Ranks) -> RunLog:
    if ranks.rank != 0:
        return RunLog(run, active=False)
    return RunLog(run, active=True, trackers=make_trackers(recipe, run))


def _build_model(recipe: Recipe, run: Path, ranks: Ranks) -> AdaptedModel:
    """The base is converted or downloaded once a node, by its first rank; the others find it done."""
    import torch.distributed

    from persianmind.model.adapted import build_adapted
    from persianmind.model.bases import resolve_base
    from persianmind.vocab.expansion import load_expansion

    if ranks.local_rank == 0:
        resolve_base(recipe.base)
    torch.distributed.barrier()
    expansion = load_expansion(run / "vocab")
    pieces = [piece.base_ids for piece in expansion.pieces]
    return build_adapted(resolve_base(recipe.base), recipe, pieces, expansion.base_vocab)


def _device(ranks: Ranks) -> torch.device:
    import torch
    from deepspeed.accelerator import get_accelerator

    return torch.device(get_accelerator().device_name(ranks.local_rank))


def _threads(ranks: Ranks) -> int:
    """This rank's fair share of the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // ranks.local_size)

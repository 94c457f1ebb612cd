"""One run from nothing to an exported model and a report; the same call resumes. The launcher and the Ray
driver both call `run_training`, on every rank."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from persianmind.common.console import print_line
from persianmind.common.errors import CheckpointError, RunInterruptedError
from persianmind.common.lock import RunLock
from persianmind.data.build.service import BackgroundBuild
from persianmind.energy.budget import Budget
from persianmind.energy.meter.client import EnergyMeter
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.start import start_distributed
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe
from persianmind.run.folder import RECIPE, claim_run_folder, same_recipe
from persianmind.run.log import read_results, update_results
from persianmind.train.assemble import assemble
from persianmind.train.prepare import (
    BUILDER_LOG,
    POLL_S,
    Prepared,
    prepare,
    read_prepared,
    wait_until_prepared,
)
from persianmind.train.stopping import stop_on_signal
from persianmind.train.watchdog import Watchdog

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel
    from persianmind.train.loop import Trainer

Resume = Literal["auto", "must", "never"]
# Writes the page of a run folder and returns its path; comes from outside, as the report reads what we write.
ReportWriter = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run: the recipe, DeepSpeed's JSON, the run folder, and how to treat what lies in it."""

    recipe: Recipe
    deepspeed_json: Path
    run: Path
    resume: Resume = "auto"
    # Another run's checkpoint, or its run folder: where a new run takes its first weights from.
    resume_from: Path | None = None
    # How the cluster asks for a stop; None: signals to this process do.
    stop_requested: Callable[[], bool] | None = None


def run_training(request: RunRequest, ranks: Ranks, write_report: ReportWriter) -> None:
    """Prepares, trains, evaluates, exports and reports; what is done already is not done again.

    Raises:
        PersianMindError: every failure a user can act on, with its own exit code.
    """
    with ExitStack() as stack:
        meter = None
        if ranks.rank == 0:
            stack.enter_context(RunLock(request.run))
            claim_run_folder(request.run, request.recipe)
        elif ranks.local_rank == 0:
            _wait_until_claimed(request)
        budget = Budget.of(request.recipe.energy, request.run)
        if ranks.local_rank == 0:
            meter = EnergyMeter(request.run, node=ranks.node, options=request.recipe.energy)
            stack.enter_context(meter)
        if ranks.rank == 0:
            prepared = prepare(request.recipe, request.run, print_line, meter)
            builder = stack.enter_context(_builder(request.run, prepared))
        else:
            wait_until_prepared(request.run, request.stop_requested)
            builder = None
        config = resolve_deepspeed_config(request.deepspeed_json, request.recipe, ranks.world_size)
        hang_timeout_s = request.recipe.train.hang_timeout_s
        start_distributed(ranks, hang_timeout_s)
        prepared = read_prepared(request.run)  # only now: before, it may be that of an earlier attempt
        # Only now: until here a signal may end the process at once, nothing is lost and nobody waits for it.
        stop = request.stop_requested or stack.enter_context(stop_on_signal())
        with Watchdog(request.run, ranks, hang_timeout_s) as watchdog:
            trainer = assemble(
                request.recipe, request.run, config, ranks, prepared, meter, budget, stop, watchdog.beat
            )
            model = _train(request, trainer)
        if builder is not None:
            builder.end()
        if ranks.rank == 0:
            from persianmind.train.finish import finish_run

            finish_run(request.recipe, request.run, model, meter, print_line, write_report)


def _builder(run: Path, prepared: Prepared) -> BackgroundBuild:
    """What builds the rest of the data beside training."""
    return BackgroundBuild(run / RECIPE, run / "vocab", run / "data", prepared.to_build, run / BUILDER_LOG)


def _wait_until_claimed(request: RunRequest) -> None:
    """On another node: its meter must not write into a folder that rank 0 has still to check and claim.

    Raises:
        RunInterruptedError: a stop was asked for meanwhile.
    """
    while not (request.run / RECIPE).is_file():
        if request.stop_requested is not None and request.stop_requested():
            raise RunInterruptedError(
                "stopped before rank 0 had the run folder; run the same command to go on"
            )
        time.sleep(POLL_S)


def _train(request: RunRequest, trainer: Trainer) -> AdaptedModel:
    """Resumes, scores the base, trains to the end; returns the trained model, the process group left."""
    import torch.distributed

    from persianmind.model.bases import resolve_base
    from persianmind.train.evaluation import BASE

    try:
        _resume(request, trainer)
        if not trainer.evaluation.has(BASE):
            if trainer.step:
                raise CheckpointError(
                    f"{request.run}/results.json lost its base row and training has begun; restore it"
                )
            trainer.mark(f"evaluate:{BASE}")
            forward = trainer.evaluation.base(resolve_base(request.recipe.base))
            trainer.say_outlook(*forward)
        _warm_start(request, trainer)
        trainer.train()
        trainer.progress.say(f"training done: {trainer.step} steps")
    finally:
        trainer.progress.close()
        trainer.log.close()
    trainer.engine.close()
    torch.distributed.destroy_process_group()
    return trainer.engine.model


def _resume(request: RunRequest, trainer: Trainer) -> None:
    """Restores the newest good checkpoint as `--resume` asks; metrics beyond it are set aside."""
    checkpoint = None if request.resume == "never" else trainer.checkpoints.newest()
    if checkpoint is None:
        if request.resume == "must":
            raise CheckpointError(f"--resume must: {request.run}/checkpoints holds no checkpoint")
        trainer.log.rewind(0)
        return
    trainer.restore(checkpoint)
    trainer.log.rewind(checkpoint.step)
    trainer.progress.say(f"resuming from {checkpoint.path} at step {checkpoint.step}")
    if trainer.meter is not None:
        trainer.meter.mark("start", checkpoint.step, resumed_step=checkpoint.step)


def _warm_start(request: RunRequest, trainer: Trainer) -> None:
    """First weights from another run, where `--resume-from` asks for it and this one has no steps yet.

    Raises:
        CheckpointError: they cannot be taken, or the run began from others before.
    """
    if trainer.step:
        return
    before = read_results(request.run).get("weights_from")
    if request.resume_from is None:
        if before:
            path = before["path"]
            raise CheckpointError(
                f"{request.run} began with weights from {path}; give --resume-from {path} again, or another "
                "--output"
            )
        return
    checkpoint = trainer.checkpoints.init_from_checkpoint(request.resume_from)
    if trainer.log.active:
        facts = {
            "path": str(request.resume_from),
            "step": checkpoint.step,
            "stage": checkpoint.metadata.get("stage"),
        }
        update_results(request.run, weights_from=facts)
    trainer.progress.say(
        f"trained weights taken from {checkpoint.path} (step {checkpoint.step}); optimizer, schedule and "
        "data start afresh"
    )


def is_complete(run: Path, recipe: Recipe) -> bool:
    """Whether an earlier call has finished everything of this recipe in this run folder."""
    return same_recipe(run, recipe) and bool(read_results(run).get("finished"))

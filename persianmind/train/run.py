"""One run from nothing to an exported model and a report; the same call resumes. The launcher and the Ray
driver both call `run_training`, on every rank."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from persianmind.common.checksum import write_checked
from persianmind.common.errors import CheckpointError, RunInterruptedError
from persianmind.common.poll import wait_until
from persianmind.energy.budget import Budget
from persianmind.energy.meter.client import EnergyMeter
from persianmind.engine.ranks import Ranks
from persianmind.engine.registry import DEFAULT_ENGINE, backend
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder, RunLock
from persianmind.run.log import read_results, update_results
from persianmind.run.records import Phase, WarmStart
from persianmind.train.callbacks.watchdog import Watchdog
from persianmind.train.consumed import compare_data, newest_data_in_use, refuse_other_sources
from persianmind.train.preparation import (
    PreparationWatch,
    preparation_timeout_s,
    watched_preparation,
)
from persianmind.train.prepare import background_build, prepare, read_prepared, wait_until_prepared
from persianmind.train.stopping import AskedElsewhere, Stopping, stopping

if TYPE_CHECKING:
    from persianmind.checkpoint.manifest import StoredCheckpoint
    from persianmind.data.read.barrier import DataBarrier
    from persianmind.model.adapted import AdaptedModel
    from persianmind.train.callbacks.save import SaveCallback
    from persianmind.train.context import RunContext

Resume = Literal["auto", "must", "never"]
# Writes the page of a run folder and returns its path; comes from outside, as the report reads what we write.
ReportWriter = Callable[[Path], Path]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run: the recipe, the engine and its config file, the run folder, and how to treat what lies in
    it.

    resume_from: another run's checkpoint, or its run folder: where a new run takes its first weights from.
    accept_changed_data: whether a run goes on over other data than it was trained on.
    dry_run: whether everything up to step 1 is only shown (dry_run.py).
    stop_requested: how the cluster asks for a stop; None: signals to this process do.
    """

    recipe: Recipe
    engine_config: Path
    folder: RunFolder
    resume: Resume = "auto"
    resume_from: Path | None = None
    accept_changed_data: bool = False
    stop_requested: Callable[[], bool] | None = None
    engine: str = DEFAULT_ENGINE
    dry_run: bool = False


def run_training(request: RunRequest, ranks: Ranks, write_report: ReportWriter) -> None:
    """Prepares, trains, evaluates, exports and reports; what is done already is not done again.

    Raises:
        PersianMindError: every failure a user can act on, with its own exit code.
    """
    recipe, folder = request.recipe, request.folder
    engine = backend(request.engine)
    with ExitStack() as stack:
        stop = stopping(request.stop_requested, engine.launcher_is_gone)
        stack.enter_context(stop)
        meter = None
        patience_s = preparation_timeout_s(recipe.train.hang_timeout_s)
        watch = PreparationWatch(folder, patience_s)
        if ranks.rank == 0:
            stack.enter_context(RunLock(folder))
            folder.claim(recipe)
        elif ranks.local_rank == 0:
            _wait_until_claimed(folder, stop, watch.check)
        budget = Budget.of(recipe.energy, folder)
        if ranks.local_rank == 0:
            meter = EnergyMeter(folder, node=ranks.node, options=recipe.energy)
            stack.enter_context(meter)
        builder = None
        if ranks.rank == 0:
            with watched_preparation(folder, ranks, patience_s, engine.wait_frames) as preparing:
                mark = _mark_preparation(meter, preparing)
                prepared = prepare(recipe, folder, mark, _source_check(request))
                builder = stack.enter_context(background_build(recipe, folder, prepared))
        else:
            wait_until_prepared(folder, stop, watch.check)
        config = engine.resolve_config(request.engine_config, recipe, ranks.world_size)
        if ranks.rank == 0:
            write_checked(folder.engine_config, config)
        agreed = {"train.precision": recipe.train.precision}
        engine.start(ranks, recipe.train.hang_timeout_s, agreed, watch.progressed_s)
        prepared = read_prepared(folder)  # only now: before, it may be that of an earlier attempt
        with Watchdog(folder, ranks, recipe.train.hang_timeout_s, engine.wait_frames) as watchdog:
            from persianmind.train.assemble import assemble

            context, barrier = assemble(
                recipe,
                folder,
                backend=engine,
                config=config,
                engine_config=request.engine_config,
                ranks=ranks,
                prepared=prepared,
                meter=meter,
                budget=budget,
                stop_requested=stop,
                watchdog=watchdog,
                builder=builder,
            )
            model = _train(request, context, barrier, stop)
        if builder is not None:
            builder.end()
        if ranks.rank == 0:
            from persianmind.train.finish import finish_run

            finish_run(recipe, folder, model, context.step, meter, write_report)


def _source_check(request: RunRequest) -> Callable[[Mapping[str, Mapping[str, str]]], None]:
    """What preparation asks before it builds: whether steps were trained on other sources."""
    if request.accept_changed_data or request.resume == "never":
        return lambda fingerprints: None
    step, trained = newest_data_in_use(request.folder)
    return partial(refuse_other_sources, step, trained)


def is_complete(folder: RunFolder, recipe: Recipe) -> bool:
    """Whether an earlier call has finished everything of this recipe in this run folder."""
    return folder.holds(recipe) and read_results(folder).finished


def _mark_preparation(meter: EnergyMeter | None, watchdog: Watchdog) -> Callable[[str, str], None]:
    def mark(word: str, what: str) -> None:
        watchdog.preparing = what
        watchdog.beat()
        if meter is not None:
            meter.mark(Phase.PREPARE, 0, word)

    return mark


def _wait_until_claimed(
    folder: RunFolder, stop_requested: Callable[[], bool], check_rank_0: Callable[[], None]
) -> None:
    """On another node: its meter must not write into a folder that rank 0 has still to check and claim.

    Raises:
        RunInterruptedError: a stop was asked for meanwhile.
        RankUnreachableError: rank 0 does not come to it.
    """

    def check() -> None:
        check_rank_0()
        if stop_requested():
            raise RunInterruptedError(
                "stopped before rank 0 had the run folder; run the same command to go on"
            )

    wait_until(folder.recipe.is_file, while_waiting=check)


def _train(
    request: RunRequest, context: RunContext, barrier: DataBarrier, stop: Stopping | AskedElsewhere
) -> AdaptedModel:
    """Resumes, scores the base, trains to the end; returns the trained model, the process group left."""
    import torch.distributed

    from persianmind.train.callbacks.save import SaveCallback
    from persianmind.train.loop import train_stages

    saves = next(one for one in context.callbacks if isinstance(one, SaveCallback))
    try:
        _resume(request, context, saves)
        for callback in context.callbacks:
            callback.start(context)
        _warm_start(request, context, saves)
        with stop.at_steps():
            train_stages(context, barrier)
        logger.info(f"training done: {context.step} steps")
    finally:
        for callback in context.callbacks:
            callback.close(context)
    context.engine.close()
    torch.distributed.destroy_process_group()
    return context.engine.model


def _resume(request: RunRequest, context: RunContext, saves: SaveCallback) -> None:
    """Restores the newest good checkpoint as `--resume` asks.

    Raises:
        ChangedDataError: the data are not those that it was trained on.
    """
    checkpoint = None if request.resume == "never" else saves.newest()
    if checkpoint is None:
        if request.resume == "must":
            raise CheckpointError(f"--resume must: {request.folder.checkpoints} holds no checkpoint")
        return
    saves.restore(context, checkpoint)
    compare_data(context, checkpoint, saves.group, accept=request.accept_changed_data)
    logger.info(f"resuming from {checkpoint.path} at step {checkpoint.step}")


def _warm_start(request: RunRequest, context: RunContext, saves: SaveCallback) -> None:
    """First weights from another run, where `--resume-from` asks for it and this one has no steps yet.

    Raises:
        CheckpointError: they cannot be taken, or the run began from others before.
    """
    if context.step:
        return
    if request.resume_from is None:
        if before := read_results(request.folder).warm_start:
            raise CheckpointError(
                f"{request.folder} began with weights from {before.path}; give --resume-from {before.path} "
                "again, or another --output"
            )
        return
    checkpoint = saves.init_from_checkpoint(context, request.resume_from)
    if context.is_main:
        _record_warm_start(request.folder, request.resume_from, checkpoint)
    logger.info(
        f"trained weights taken from {checkpoint.path} (step {checkpoint.step}); optimizer, schedule and "
        "data start afresh"
    )


def _record_warm_start(folder: RunFolder, place: Path, checkpoint: StoredCheckpoint) -> None:
    stage = checkpoint.metadata.get("stage")
    update_results(folder, warm_start=WarmStart(path=str(place), step=checkpoint.step, stage=stage))

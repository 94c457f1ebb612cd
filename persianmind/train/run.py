"""One run from nothing to an exported model and a report; the same call resumes. The launcher and the Ray
driver both call `run_training`, on every rank."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from persianmind.checkpoint.lock import RunLock
from persianmind.energy.budget import Budget
from persianmind.energy.meter import EnergyMeter
from persianmind.errors import CheckpointError
from persianmind.plan.run_folder import claim_run_folder, same_recipe
from persianmind.recipe import Recipe
from persianmind.train.deepspeed_config import resolve_deepspeed_config
from persianmind.train.prepare import Prepared, prepare, read_prepared, wait_until_prepared
from persianmind.train.progress import Progress
from persianmind.train.ranks import Ranks, start_distributed
from persianmind.train.runlog import RunLog, read_results

Resume = Literal["auto", "must", "never"]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run: the recipe, DeepSpeed's JSON, the run folder, and how to treat what lies in it."""

    recipe: Recipe
    deepspeed_json: Path
    run: Path
    resume: Resume = "auto"
    # How the cluster asks for a stop; None: signals to this process do.
    stop_requested: Callable[[], bool] | None = None


def run_training(request: RunRequest, ranks: Ranks) -> None:
    """Prepares, trains, evaluates, exports and reports; what is done already is not done again.

    Raises:
        PersianMindError: every failure a user can act on, with its own exit code.
    """
    config = resolve_deepspeed_config(request.deepspeed_json, request.recipe, ranks.world_size)
    with ExitStack() as stack:
        stop = request.stop_requested or stack.enter_context(_stop_on_signal())
        meter = None
        if ranks.rank == 0:
            stack.enter_context(RunLock(request.run))
            claim_run_folder(request.run, request.recipe)
        budget = Budget.of(request.recipe.energy, request.run)
        if ranks.local_rank == 0:
            meter = EnergyMeter(request.run, node=ranks.node, options=request.recipe.energy)
            stack.enter_context(meter)
        if ranks.rank == 0:
            prepared = prepare(request.recipe, request.run, _say, meter)
        else:
            wait_until_prepared(request.run, stop)
            prepared = read_prepared(request.run)
        trained = _train(request, config, ranks, prepared, meter, budget, stop)
        if ranks.rank == 0:
            from persianmind.train.finish import finish_run

            finish_run(request.recipe, request.run, trained, meter, _say)


def _train(
    request: RunRequest,
    config: dict[str, Any],
    ranks: Ranks,
    prepared: Prepared,
    meter: EnergyMeter | None,
    budget: Budget,
    stop: Callable[[], bool],
) -> Any:
    """Joins the ranks, builds model and engine, resumes, trains; returns the trained `AdaptedModel`."""
    import torch
    import torch.distributed

    from persianmind.data.dataset import TokenDataset
    from persianmind.model.bases import resolve_base
    from persianmind.plan.arithmetic import describe_run
    from persianmind.train.engine import Engine
    from persianmind.train.evaluation import BASE, Evaluation
    from persianmind.train.saving import RunCheckpoints
    from persianmind.train.selftest import run_self_tests
    from persianmind.train.stages import plan_stages
    from persianmind.train.trainer import Trainer, is_finished, stage_data

    recipe, run = request.recipe, request.run
    torch.set_num_threads(recipe.train.threads_per_rank or _threads(ranks))
    torch.manual_seed(recipe.seed + ranks.rank)
    start_distributed(ranks)
    base = _base_on_every_node(recipe, ranks, resolve_base)
    model = _build_model(recipe, run, base)
    datasets = {name: TokenDataset(run / "data" / name) for name in prepared.rows_by_source}
    plans = plan_stages(recipe, prepared.rows_by_source)
    progress = Progress(active=ranks.rank == 0, steps=plans[-1].last_step)
    if meter is not None:
        meter.mark("start", 0)
    for line in describe_run(recipe, plans, model, ranks.world_size):
        progress.say(line)
    first_stage = stage_data(recipe, plans[0], datasets)
    device = _device(ranks)
    model.to(device)
    if recipe.train.self_tests and not _has_checkpoints(run):
        rows = [first_stage.batch([sample]) for sample in range(ranks.world_size)]
        run_self_tests(model, config, ranks, rows, device, progress.say)
    engine = Engine(model, config, ranks)
    checkpoints = RunCheckpoints(recipe, run, engine, prepared, progress.say)
    trainer = Trainer(
        recipe=recipe,
        engine=engine,
        plans=plans,
        datasets=datasets,
        checkpoints=checkpoints,
        evaluation=Evaluation(recipe, run, engine, progress.say),
        log=RunLog(run, active=ranks.rank == 0),
        progress=progress,
        meter=meter,
        stop_requested=stop,
        budget=budget,
    )
    _resume(request, trainer)
    if not trainer.evaluation.has(BASE):
        if trainer.step:
            raise CheckpointError(f"{run}/results.json lost its base row and training has begun; restore it")
        if meter is not None:
            meter.mark(f"evaluate:{BASE}", 0)
        trainer.evaluation.base(base)
    try:
        trainer.train()
        if is_finished(plans, trainer.step):
            progress.say(f"training done: {trainer.step} steps")
    finally:
        progress.close()
        trainer.log.close()
    engine.close()
    torch.distributed.destroy_process_group()
    return model


def _resume(request: RunRequest, trainer: Any) -> None:
    """Restores the newest good checkpoint as `--resume` asks; metrics beyond it are set aside."""
    checkpoint = None if request.resume == "never" else trainer.checkpoints.newest()
    if checkpoint is None:
        if request.resume == "must":
            raise CheckpointError(f"--resume must: {request.run}/checkpoints holds no checkpoint")
        trainer.log.rewind(0)
        return
    trainer.checkpoints.restore(checkpoint)
    trainer.step = checkpoint.step
    trainer.log.rewind(checkpoint.step)
    trainer.progress.say(f"resuming from {checkpoint.path} at step {checkpoint.step}")
    if trainer.meter is not None:
        trainer.meter.mark("start", checkpoint.step, resumed_step=checkpoint.step)


def _build_model(recipe: Recipe, run: Path, base: Path) -> Any:
    from persianmind.model.adapted import build_adapted
    from persianmind.vocab.expansion import load_expansion

    expansion = load_expansion(run / "vocab")
    pieces = [piece.base_ids for piece in expansion.pieces]
    return build_adapted(base, recipe, pieces, expansion.base_vocab)


def _base_on_every_node(recipe: Recipe, ranks: Ranks, resolve: Callable[[str], Path]) -> Path:
    """Converted or downloaded once a node, by its first rank; the others find it done."""
    import torch.distributed

    if ranks.local_rank == 0:
        resolve(recipe.base)
    torch.distributed.barrier()
    return resolve(recipe.base)


def _device(ranks: Ranks) -> Any:
    import torch
    from deepspeed.accelerator import get_accelerator

    return torch.device(get_accelerator().device_name(ranks.local_rank))


def _threads(ranks: Ranks) -> int:
    return max(1, len(os.sched_getaffinity(0)) // ranks.local_size)


def _has_checkpoints(run: Path) -> bool:
    return any((run / "checkpoints").glob("step-*"))


def is_complete(run: Path, recipe: Recipe) -> bool:
    """Whether an earlier call has finished everything of this recipe in this run folder."""
    return same_recipe(run, recipe) and bool(read_results(run).get("finished"))


def _say(message: str) -> None:
    print(message, flush=True)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """The first SIGTERM or SIGINT asks for a stop at the next step; a second one ends the process at once."""
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

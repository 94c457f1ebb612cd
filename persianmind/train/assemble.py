"""Putting the parts of one run together on one rank: model, data, engine, callbacks."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import RunInterruptedError
from persianmind.common.units import duration_text
from persianmind.energy.budget import Budget
from persianmind.energy.meter.client import EnergyMeter
from persianmind.engine.base import Backend, Batch, Engine
from persianmind.engine.ranks import Ranks, TorchGroup
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import RunLog, read_results, update_results
from persianmind.run.records import Determinism, Phase, Prepared
from persianmind.run.trackers import make_trackers

if TYPE_CHECKING:
    import torch

    from persianmind.data.build.service import BackgroundBuild
    from persianmind.data.read.barrier import DataBarrier
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.model.adapted import AdaptedModel
    from persianmind.train.callbacks.watchdog import Watchdog
    from persianmind.train.context import RunContext
    from persianmind.train.stages import StagePlan

logger = logging.getLogger(__name__)


def assemble(
    recipe: Recipe,
    folder: RunFolder,
    *,
    backend: Backend,
    config: Mapping[str, Any],
    engine_config: Path,
    ranks: Ranks,
    prepared: Prepared,
    meter: EnergyMeter | None,
    budget: Budget,
    stop_requested: Callable[[], bool],
    watchdog: Watchdog,
    builder: BackgroundBuild | None,
) -> tuple[RunContext, DataBarrier]:
    """Builds everything, logs the arithmetic, runs the self-tests of a fresh run; all ranks together.

    Args:
        config: the engine's own, filled from the recipe. engine_config: the file it comes from.
        builder: what builds beside training, on the rank that started it.

    Raises:
        SelfTestError: the run would not train what it says.
    """
    import torch

    from persianmind.data.read.barrier import DataBarrier
    from persianmind.engine.collectives import sum_counts
    from persianmind.estimate.describe import describe_run
    from persianmind.train.callbacks import make_callbacks
    from persianmind.train.context import RunContext
    from persianmind.train.memory import measure_micro_batch, resized_batch
    from persianmind.train.preparation import preparation_timeout_s
    from persianmind.train.selftest import run_self_tests
    from persianmind.train.stages import log_passes, plan_stages

    torch.set_num_threads(recipe.train.threads_per_rank or _threads(ranks))
    torch.manual_seed(recipe.seed + ranks.rank)
    if meter is not None:
        meter.mark(Phase.START, 0)
    device = backend.device(ranks)
    datasets = _datasets(folder, prepared, stop_requested)
    barrier = DataBarrier(
        datasets,
        lambda values: sum_counts(values, device, ranks.world_size),
        watchdog.beat,
        builder,
        preparation_timeout_s(recipe.train.hang_timeout_s),
    )
    plans = plan_stages(recipe, prepared.sequences_by_source)
    batches = _first_batches(recipe, plans, datasets, ranks, barrier, stop_requested)
    with_tests = recipe.train.self_tests and not folder.has_checkpoints
    started_s = time.monotonic()
    model = _build_model(recipe, folder, engine_config, ranks, backend, batches if with_tests else [])
    for line in describe_run(recipe, [(plan.stage, plan.steps) for plan in plans], model, ranks.world_size):
        logger.info(line)
    if ranks.rank == 0:
        log_passes(recipe, plans, prepared.sequences_by_source)
    _set_determinism(recipe, folder, model, batches[ranks.rank], backend, ranks)
    if with_tests:
        run_self_tests(model, lambda: backend.open(model, config, ranks), batches, device)
        took = duration_text(time.monotonic() - started_s)
        logger.info(f"self-tests: passed, {took} with loading the base")
    lengths = {recipe.seq_len_of(stage) for stage in recipe.stages} if ranks.rank == 0 else set()
    micro_batches = {
        length: measure_micro_batch(model, resized_batch(batches[0], length), device) for length in lengths
    }
    engine: Engine = backend.open(model, config, ranks)
    engine.on_progress = watchdog.beat
    context = RunContext(
        recipe=recipe,
        folder=folder,
        ranks=ranks,
        engine=engine,
        prepared=prepared,
        datasets=datasets,
        plans=plans,
        log=_run_log(recipe, folder, ranks),
        meter=meter,
        stop_requested=stop_requested,
        on_progress=watchdog.beat,
        micro_batches=micro_batches,
    )
    context.callbacks = make_callbacks(context, watchdog, budget)
    return context, barrier


def _datasets(
    folder: RunFolder, prepared: Prepared, stop_requested: Callable[[], bool]
) -> dict[str, TokenDataset]:
    """What is built by now, and will be, by the names of packings."""
    from persianmind.data.manifest import Fingerprints
    from persianmind.data.read.incremental import IncrementalDataset

    def while_waiting() -> None:
        if stop_requested():
            raise _stopped_early()

    return {
        name: IncrementalDataset(
            folder.shards(name), Fingerprints.model_validate(fingerprints), while_waiting
        )
        for name, fingerprints in prepared.fingerprints.items()
    }


def _stopped_early() -> RunInterruptedError:
    return RunInterruptedError(
        "stopped while the first sequences were being built; run the same command to go on"
    )


def _run_log(recipe: Recipe, folder: RunFolder, ranks: Ranks) -> RunLog:
    if ranks.rank != 0:
        return RunLog(folder, active=False)
    return RunLog(folder, active=True, trackers=make_trackers(recipe, folder.path))


def _build_model(
    recipe: Recipe,
    folder: RunFolder,
    engine_config: Path,
    ranks: Ranks,
    backend: Backend,
    batches: Sequence[Batch],
) -> AdaptedModel:
    """The base is converted or downloaded once per node, by its first rank; the others find it done.

    Args:
        batches: what to hold the model's loss against the base's own over; none: it is not.
    """
    import torch.distributed

    from persianmind.estimate.phases import self_tests_s
    from persianmind.estimate.time import step_over_forward
    from persianmind.model.adapted import adapt, attention_implementation, load_base
    from persianmind.model.attention import IMPLEMENTATIONS
    from persianmind.model.bases import read_config, resolve_base
    from persianmind.train.recompute import decide_recompute
    from persianmind.train.sample import sample_documents
    from persianmind.train.selftest_forward import BaseForward, check_forward
    from persianmind.vocab.expansion import load_expansion

    if ranks.local_rank == 0:
        resolve_base(recipe.base)
    torch.distributed.barrier()
    expansion = load_expansion(folder.vocab)
    pieces = [piece.base_ids for piece in expansion.pieces]
    device, base_vocab = backend.device(ranks), expansion.base_vocab
    recipe = decide_recompute(
        recipe,
        folder,
        read_config(resolve_base(recipe.base)),
        (base_vocab, len(pieces)),
        engine_config=engine_config,
        device=device,
        ranks=ranks,
    )
    causal_lm = load_base(resolve_base(recipe.base), recipe, device)
    documents = sample_documents(batches, base_vocab, len(pieces)) if batches else []
    base = BaseForward.of(causal_lm, documents, pieces, base_vocab) if documents else None
    model = adapt(causal_lm, recipe, pieces, base_vocab).to(device)
    if base is not None:
        passes = step_over_forward(recipe, model.layer_count)
        expected_s = self_tests_s(
            base.token_s, sum(map(len, documents)), batches[0]["input_ids"].size, passes
        )
        logger.info(f"self-tests: about {duration_text(expected_s)}")
        check_forward(model, base, documents, recipe.train.quantize)
    if attention_implementation(recipe.train.attention) != IMPLEMENTATIONS[recipe.train.attention]:
        logger.info("attention: flash-attn cannot run here; torch's own kernels are used instead")
    _fuse(recipe, model, device, ranks)
    return model


def _fuse(recipe: Recipe, model: AdaptedModel, device: torch.device, ranks: Ranks) -> None:
    """Compiled layers on all ranks or on none, which would round differently; or Liger's kernels."""
    from persianmind.model.compiling import compile_layers, decide_compile
    from persianmind.model.liger import apply_liger

    if recipe.train.kernels == "liger":
        apply_liger(model.causal_lm, device.type)
        logger.info("kernels: Liger's for norms, rotations and SwiGLU, in place of compiled layers")
        return
    decisions = TorchGroup(ranks).all_gather(decide_compile(recipe.train.compile, device.type))
    wanted, why = min(decisions, key=lambda decision: bool(decision[0]))
    logger.info(why)
    if wanted:
        compile_layers(model.causal_lm)


def _first_batches(
    recipe: Recipe,
    plans: list[StagePlan],
    datasets: dict[str, TokenDataset],
    ranks: Ranks,
    barrier: DataBarrier,
    stop_requested: Callable[[], bool],
) -> list[Batch]:
    """A micro-batch of the first stage for each rank, to try things on; all ranks wait for them together.

    Raises:
        RunInterruptedError: a stop was asked for meanwhile.
        BuildFailedError: they will not come.
    """
    from persianmind.train.loop import stage_data

    first_stage = stage_data(recipe, plans[0], datasets)
    size = recipe.train.micro_batch_size
    if not barrier.open(first_stage, range(size * ranks.world_size), stop_requested):
        raise _stopped_early()
    return [first_stage.batch(range(size * rank, size * (rank + 1))) for rank in range(ranks.world_size)]


def _set_determinism(
    recipe: Recipe, folder: RunFolder, model: AdaptedModel, batch: Batch, backend: Backend, ranks: Ranks
) -> None:
    """As this run has it already, else as a trial on this machine says."""
    from persianmind.train.determinism import apply_determinism, choose_determinism

    group = TorchGroup(ranks)
    # Rank 0's answer: it alone writes the file.
    recorded = read_results(folder).model_dump(mode="json")["determinism"] if ranks.rank == 0 else None
    recorded = group.all_gather(recorded)[0]
    chosen = None if recorded is None else Determinism.model_validate(recorded)
    if chosen is None:
        device = backend.device(ranks)
        chosen = choose_determinism(recipe.train.deterministic, model, batch, device, group)
        if ranks.rank == 0:
            update_results(folder, determinism=chosen)
    apply_determinism(chosen)


def _threads(ranks: Ranks) -> int:
    """This rank's fair share of the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // ranks.local_size)

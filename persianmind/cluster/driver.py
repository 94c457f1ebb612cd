"""The driver: connects to Ray (or starts one), waits for machines, runs the workers, says how it ended."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persianmind.checks.device import resolve_precision
from persianmind.cluster.security import check_dashboard, dashboard_url
from persianmind.cluster.sizing import Node, Scale, cpus_per_worker, workers_that_fit
from persianmind.common.checksum import hash_text
from persianmind.common.errors import ClusterError, JobLostError, PersianMindError
from persianmind.common.paths import PROJECT_ROOT as ROOT
from persianmind.common.poll import wait_until
from persianmind.engine.ranks import collective_timeout_s
from persianmind.report.page import write_report
from persianmind.run.folder import RunFolder
from persianmind.train.command import is_finished, show_finished
from persianmind.train.run import RunRequest

logger = logging.getLogger(__name__)
POLL_S = 2.0
# Ray's own default is 60 s. Workers are placed at once where there is room; after a node's death Ray first
# asks for as many as before, and only when this is over for as many as there are.
GROUP_START_TIMEOUT_S = 10
OBJECT_STORE_BYTES = 100_000_000  # training moves nothing through Ray's object store
ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """How the driver runs: on a Ray of its own (`local`) or the cluster it is in; budgets and waits."""

    scale: Scale
    local: bool
    max_failures: int
    wait_s: float
    resize_s: float


def run_driver(request: RunRequest, options: DriverOptions) -> None:
    """Trains to the end, through restarts.

    Raises:
        PersianMindError: a named error of a worker, or a `ClusterError` that says what ended the run.
    """
    if request.folder.recipe.is_file():  # a run keeps the precision it began with, whatever trains it now
        request = replace(request, recipe=resolve_precision(request.recipe, request.folder))
    if is_finished(request):  # seen from here: no machine has to be waited for
        return show_finished(request.folder, request.recipe, write_report)
    _set_environment(options)
    # First: loaded after Ray has connected, torch's MKL can fail to find itself and ends the process.
    import torch  # noqa: F401

    import ray  # isort: skip

    from persianmind.cluster.board import start_board

    request = replace(
        request,
        folder=RunFolder(request.folder.path.absolute()),
        engine_config=request.engine_config.absolute(),
    )
    with _connected(options):
        cpus = wait_for_nodes(options)
        board = start_board()
        started_s = time.monotonic()
        try:
            _fit(request, options, cpus, board)
        finally:
            _log_attempts(ray.get(board.attempts.remote()), time.monotonic() - started_s)


def _set_environment(options: DriverOptions) -> None:
    """Before Ray is imported."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        # The working folder of a worker stays the shipped one.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(GROUP_START_TIMEOUT_S),
        # Identical lines of two ranks are two facts.
        "RAY_DEDUP_LOGS": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it says every printed line twice
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    if options.local:
        # The switch is named after the systems that have it on: this machine alone, on 127.0.0.1.
        defaults["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def _connected(options: DriverOptions) -> Iterator[None]:
    import ray

    workers_see = {"PYTHONPATH": os.pathsep.join([str(ROOT), *_python_path()])}
    if not options.scale.gpu:
        workers_see["DS_ACCELERATOR"] = "cpu"
    common: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    try:
        if options.local:
            context = ray.init(
                address="local",
                num_cpus=options.scale.workers if not options.scale.gpu else None,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=True,  # Ray Train asks it whether its controller lives
                dashboard_host="127.0.0.1",
                runtime_env={"env_vars": workers_see},
                **common,
            )
        else:
            context = ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), **common)
    except Exception as error:  # Ray raises a bare Exception when its own processes do not come up
        fix = "is the machine overloaded?" if options.local else "is `ray start` running here?"
        raise ClusterError(f"cannot connect to Ray: {_one_line(error)}; {fix}") from None
    try:
        if context.dashboard_url:
            check_dashboard(dashboard_url(context.dashboard_url))
        yield
    finally:
        ray.shutdown()


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def wait_for_nodes(options: DriverOptions) -> float:
    """Waits until the cluster holds the workers asked for (or the fewest allowed, once `wait_s` is over).

    Returns the CPUs of a worker.

    Raises:
        ClusterError: too few machines came in `wait_s`.
    """
    scale = options.scale
    smallest = 0.1 if scale.gpu else 1.0

    def enough() -> bool:
        return workers_that_fit(alive_nodes(), gpu=scale.gpu, cpus_per_worker=smallest) >= scale.workers

    if not enough():
        logger.info(f"waiting up to {options.wait_s:g} s for machines for {scale.workers} workers")
        wait_until(enough, timeout_s=options.wait_s, interval_s=POLL_S)
    nodes = alive_nodes()
    cpus = cpus_per_worker(nodes, scale)
    slots = workers_that_fit(nodes, gpu=scale.gpu, cpus_per_worker=cpus)
    size = f"{cpus:g} CPUs{' and 1 GPU' if scale.gpu else ''}"
    logger.info(f"cluster: {len(nodes)} node(s), {slots} slots of {size}, {scale.workers} workers")
    return cpus


def alive_nodes() -> list[Node]:
    """The machines Ray has now."""
    import ray

    return [
        Node(
            node["NodeManagerAddress"],
            float(node["Resources"].get("CPU", 0)),
            float(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _fit(request: RunRequest, options: DriverOptions, cpus: float, board: Any) -> None:
    from ray.exceptions import RayActorError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

    from persianmind.cluster.policies import ElasticTrainer
    from persianmind.cluster.worker import InterfaceTorchConfig, train_worker

    scale = options.scale
    elastic = scale.min_workers < scale.workers
    resources = {"CPU": cpus, **({"GPU": 1} if scale.gpu else {})}
    scratch = Path(tempfile.mkdtemp(prefix="persianmind-ray-"))  # what Ray Train notes down for itself
    trainer = ElasticTrainer(
        train_worker,
        {"request": request, "board": board, "root": ROOT, "cwd": Path.cwd() if options.local else None},
        on_signal=lambda: _ask_stop(board),
        run_id=hash_text(str(request.folder)),
        torch_config=InterfaceTorchConfig(
            backend="nccl" if scale.gpu else "gloo",
            timeout_s=math.ceil(collective_timeout_s(request.recipe.train.hang_timeout_s)),
            hang_timeout_s=request.recipe.train.hang_timeout_s,
        ),
        scaling_config=ScalingConfig(
            num_workers=(scale.min_workers, scale.workers) if elastic else scale.workers,
            use_gpu=scale.gpu,
            resources_per_worker=resources,
            placement_strategy="PACK" if scale.gpu else "SPREAD",
            elastic_resize_monitor_interval_s=options.resize_s,
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(scratch),
            failure_config=FailureConfig(
                max_failures=options.max_failures,
                controller_failure_limit=max(1, math.ceil(options.wait_s / GROUP_START_TIMEOUT_S)),
            ),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise explain_failure(error, options.max_failures) from None
    except RayActorError:
        raise JobLostError(
            "Ray's Train controller was killed, and the workers with it (it runs beside the driver: is that "
            "machine out of memory?); the same command resumes from the newest checkpoint"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _ask_stop(board: Any) -> None:
    logger.warning("stop asked for: every rank saves after its step and ends")
    board.ask_stop.remote()


def explain_failure(error: Exception, max_failures: int) -> PersianMindError:
    """What ended the run, as one named error: the workers' own where they gave one."""
    from persianmind.cluster.policies import WORTH_RETRYING, named_errors

    if causes := named_errors(error):
        cause = causes[min(causes)]
        if not isinstance(cause, WORTH_RETRYING):
            return cause
    if failures := getattr(error, "worker_failures", None):
        rank = min(causes or failures)  # others ended because of it
        return ClusterError(
            f"the restart budget is used up (--max-failures {max_failures}); last, rank {rank} ended with: "
            f"{_one_line(failures[rank])}; look at its node, then run the same command to resume from the "
            "newest checkpoint"
        )
    inner = getattr(error, "controller_failure", error)
    return ClusterError(
        f"Ray could not keep the workers running: {_one_line(inner)}; check `ray status`, then run the same "
        "command to resume"
    )


def _one_line(error: object) -> str:
    """The last line of a traceback tells most."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:ERROR_CHARACTERS]


def _log_attempts(attempts: list[dict[str, Any]], seconds: float) -> None:
    if len(attempts) > 1:
        sizes = ", ".join(f"{one['world_size']} ranks" for one in attempts)
        logger.info(f"{len(attempts)} attempts ({sizes}) in {seconds:.0f} s")

"""What the cluster command was asked for, and what of it goes to the job."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from persianmind.common.errors import ClusterError
from persianmind.common.paths import PROJECT_ROOT
from persianmind.recipe.loading import known_recipes
from persianmind.run.folder import RunFolder
from persianmind.train.command import (
    ENGINE_CONFIG,
    TrainArguments,
)
from persianmind.train.run import RunRequest

RUNS = "PERSIANMIND_RUNS"


@dataclass(frozen=True, slots=True)
class SubmitArguments:
    """The flags as given: `train` are those of the training command."""

    train: TrainArguments
    local: bool
    address: str | None
    nodes: int | None
    gpus_per_node: int | None
    gpu_workers: int | None
    cpu_workers: int | None
    min_workers: int | None
    max_failures: int
    wait_s: float
    resize_s: float
    job_id: str | None
    max_upload_mib: float
    detach: bool
    send_token_unencrypted: bool


@dataclass(frozen=True, slots=True)
class JobArguments:
    """One of `COMMANDS` on a run's id, or on one submission's."""

    command: str
    id: str
    address: str
    send_token_unencrypted: bool
    follow: bool = False
    as_json: bool = False


def job_arguments(given: SubmitArguments) -> list[str]:
    """The flags a job is started with: those given, without the ones that say how to submit."""
    train = given.train
    default = TrainArguments()
    deepspeed = train.deepspeed
    if deepspeed.is_relative_to(PROJECT_ROOT):  # where the job finds it in its own copy
        deepspeed = deepspeed.relative_to(PROJECT_ROOT)
    flags: list[tuple[str, object, object]] = [
        ("--recipe", train.recipe, None),
        ("--deepspeed", deepspeed, ENGINE_CONFIG.relative_to(PROJECT_ROOT)),
        ("--output", train.output, None),
        ("--resume", train.resume, default.resume),
        ("--resume-from", train.resume_from, None),
        ("--nodes", given.nodes, None),
        ("--gpus-per-node", given.gpus_per_node, None),
        ("--gpu-workers", given.gpu_workers, None),
        ("--cpu-workers", given.cpu_workers, None),
        ("--min-workers", given.min_workers, None),
        ("--max-failures", given.max_failures, 3),
        ("--wait-s", given.wait_s, 300),
        ("--resize-s", given.resize_s, 300),
    ]
    words = [
        word for flag, value, unset in flags if value not in (None, unset) for word in (flag, str(value))
    ]
    if train.accept_changed_data:
        words.append("--accept-changed-data")
    return [*words, *train.overrides]


def shared_output(request: RunRequest, *, explicit: bool) -> RunRequest:
    """The run folder where every machine sees it; a job's own folder is a copy that Ray deletes.

    Raises:
        ClusterError: neither --output nor $PERSIANMIND_RUNS says where, or the path is relative.
    """
    if explicit and not request.folder.path.is_absolute():
        raise ClusterError(
            f"--output {request.folder}: on a cluster give an absolute path that every node sees"
        )
    if explicit:
        return request
    if not os.environ.get(RUNS):
        raise ClusterError(
            f"give --output /shared/folder/NAME, a path that every node sees, or set {RUNS} on the head"
        )
    return replace(request, folder=RunFolder(Path(os.environ[RUNS]) / request.recipe.name))


def check_shipped(recipe: str, root: Path) -> None:
    """A recipe given as a path must lie in the folder that is shipped, and be named from there.

    Raises:
        ClusterError: it does not; the job would not find it.
    """
    if recipe in known_recipes():
        return
    if Path(recipe).is_absolute() or not (root / recipe).is_file():
        raise ClusterError(
            f"--recipe {recipe} is not shipped; copy it into {root}/launcher/recipes and name it"
        )

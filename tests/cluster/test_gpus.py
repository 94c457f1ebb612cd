"""Workers on machines with GPUs, imitated: Ray's own assignment of ranks, and what its workers agree on."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from persianmind.cluster import command, driver, worker
from persianmind.cluster.driver import DriverOptions
from persianmind.cluster.sizing import Scale
from persianmind.energy.meter.pipes import NODE_GPUS
from persianmind.engine.deepspeed.devices import device_index
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.run import RunRequest
from tests.checkpoint.helpers import ThreadGroup, on_ranks

OPEN = "train.precision=auto"
TINY = load_recipe("tiny", [OPEN])
# A box with four GPUs, one with two, and a worker order as Ray's scheduler may leave it.
PLACED = [("b", "1"), ("a", "2"), ("a", "0"), ("b", "0"), ("a", "3"), ("a", "1")]


def rays_workers() -> list[Any]:
    from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

    workers = [
        SimpleNamespace(
            resources={"GPU": 1},
            metadata=SimpleNamespace(node_id=node, node_ip=f"10.0.0.{node}", accelerator_ids={"GPU": [gpu]}),
            distributed_context=None,
        )
        for node, gpu in PLACED
    ]
    assigned: list[Any] = WorkerGroup._assign_worker_ranks(workers)
    return assigned


def ranks_of(one: Any) -> Ranks:
    context = one.distributed_context
    return Ranks(context.world_rank, context.world_size, context.local_rank, context.local_world_size)


@pytest.mark.parametrize("shared", [True, False], ids=["all of the box visible", "its own visible"])
def test_imitated_boxes_of_four_and_two_give_every_worker_the_gpu_ray_gave_it(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    from ray.train.v2._internal.callbacks.accelerators import _get_visible_accelerator_ids_per_worker

    workers = rays_workers()
    visible = _get_visible_accelerator_ids_per_worker([one.metadata for one in workers], "GPU")
    assert sorted(visible) == ["0,1"] * 2 + ["0,1,2,3"] * 4
    for one, all_of_the_box in zip(workers, visible, strict=True):
        own = str(one.metadata.accelerator_ids["GPU"][0])
        seen = all_of_the_box if shared else own
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        ids = seen.split(",")
        assert ids[device_index(ranks_of(one), len(ids))] == own
    sizes = {one.metadata.node_id: ranks_of(one).local_size for one in workers}
    assert sizes == {"a": 4, "b": 2}
    assert sorted(ranks_of(one).rank for one in workers) == list(range(6))


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        (["bf16", "bf16", "bf16"], "bf16"),
        (["bf16", "fp32", "bf16"], "fp32"),  # one box with GPUs that do not multiply bf16
        (["fp32", "fp32", "fp32"], "fp32"),
    ],
)
def test_imitated_machines_agree_on_a_precision_that_all_multiply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machines: list[str], expected: str
) -> None:
    assert precisions(tmp_path, monkeypatch, machines) == [expected] * 3


def test_imitated_machines_keep_the_precision_a_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.yaml").touch()
    assert precisions(tmp_path, monkeypatch, ["bf16", "fp32", "fp32"]) == ["bf16"] * 3


def precisions(run: Path, monkeypatch: pytest.MonkeyPatch, machines: list[str]) -> list[str]:
    own = threading.local()

    def resolve(recipe: Recipe, folder: RunFolder) -> Recipe:
        train = recipe.train.model_copy(update={"precision": machines[own.group.rank]})
        return recipe.model_copy(update={"train": train})

    monkeypatch.setattr(worker, "resolve_precision", resolve)
    monkeypatch.setattr(worker, "TorchGroup", lambda ranks, **_: own.group)
    request = RunRequest(TINY, Path("zero2.json"), RunFolder(run))

    def on_rank(group: ThreadGroup) -> str:
        own.group = group
        ranks = Ranks(group.rank, len(machines), 0, 1)
        return str(worker.agree_precision(request, ranks).recipe.train.precision)

    return on_ranks(len(machines), on_rank)


def test_imitated_workers_with_a_gpu_each_have_all_of_their_box_metered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered = [
        {"node": "a", "gpus": "0"},
        {"node": "b", "gpus": "0"},
        {"node": "a", "gpus": "3"},
        {"node": "a", "gpus": "1"},
    ]
    monkeypatch.setattr(worker, "TorchGroup", lambda *_, **__: SimpleNamespace(all_gather=lambda _: gathered))
    monkeypatch.setenv("PERSIANMIND_NODE", "a")
    monkeypatch.setenv(NODE_GPUS, "")
    worker.share_visible_gpus(Ranks(0, 4, 0, 3))
    assert worker.os.environ[NODE_GPUS] == "0,3,1"


def test_imitated_workers_that_see_all_of_their_box_are_metered_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathered = [{"node": "a", "gpus": "4,5"}] * 2
    monkeypatch.setattr(worker, "TorchGroup", lambda *_, **__: SimpleNamespace(all_gather=lambda _: gathered))
    monkeypatch.setenv("PERSIANMIND_NODE", "a")
    monkeypatch.setenv(NODE_GPUS, "")
    worker.share_visible_gpus(Ranks(0, 2, 0, 2))
    assert worker.os.environ[NODE_GPUS] == "4,5"


def test_a_head_without_gpus_leaves_the_precision_to_the_machines_that_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RunRequest] = []
    monkeypatch.setattr(command, "run_here", lambda given, request, scale: asked.append(request))
    output = tmp_path / "run"
    command.run(["--recipe", "tiny", "--gpu-workers", "4", "--local", "--output", str(output), OPEN])
    assert asked[0].recipe.train.precision == "auto"
    # Control: the training command, which trains here, decides here.
    from persianmind.train.command import TrainArguments

    decided = TrainArguments("tiny", output=output, overrides=(OPEN,)).request()
    assert decided.recipe.train.precision in ("bf16", "fp32")


def test_the_driver_knows_a_finished_run_whatever_its_own_machine_multiplies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    bf16 = TINY.model_copy(update={"train": TINY.train.model_copy(update={"precision": "bf16"})})
    folder.path.mkdir()
    folder.claim(bf16)
    seen: list[RunRequest] = []

    def finished(request: RunRequest) -> bool:
        seen.append(request)
        return True

    monkeypatch.setattr(driver, "is_finished", finished)
    monkeypatch.setattr(driver, "show_finished", lambda *_: None)
    options = DriverOptions(Scale(1, 1, gpu=True), True, 0, 0.0, 0.0)
    driver.run_driver(RunRequest(TINY, Path("zero2.json"), folder), options)
    assert seen[0].recipe.train.precision == "bf16"

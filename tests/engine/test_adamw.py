"""Which AdamW kernel updates the weights, and that a checkpoint of another one goes on with this one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch

from persianmind.engine.deepspeed import engine as engine_module
from persianmind.engine.deepspeed.adamw import adamw_kernel, keep_kernel
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import build_adapted
from persianmind.recipe.loading import load_recipe
from tests.checkpoint.helpers import make_store, newest
from tests.engine.test_imitated_gpu import meta_model
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, make_recipe, packed_batch
from tests.support.devices import META
from tests.support.launch import ZERO2

CPU = torch.device("cpu")
RANKS = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
RATES = dict.fromkeys(("adapters_a", "adapters_b", "embeddings"), 1e-2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_environment()
    start_distributed(RANKS)
    return make_base(tmp_path_factory.mktemp("base") / "base", "llama", tied=False)


def open_engine(base: Path) -> DeepSpeedEngine:
    model = build_adapted(base, make_recipe(train={"precision": "fp32"}), PIECES, BASE_VOCAB)
    engine = DeepSpeedEngine(model, resolve_deepspeed_config(ZERO2, load_recipe("tiny"), 1), RANKS)
    engine.set_rates(RATES)
    return engine


def groups_of(engine: DeepSpeedEngine) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = engine._deepspeed.optimizer.optimizer.param_groups
    return groups


def batch() -> Any:
    return {name: value.numpy() for name, value in packed_batch(vocab=BASE_VOCAB + len(PIECES)).items()}


def test_an_imitated_gpu_gets_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What DeepSpeed is asked for, and that torch takes it; not FusedAdam, which nvcc compiles."""
    asked: list[dict[str, Any]] = []

    def initialize(**options: Any) -> Any:
        asked.append(options["config"]["optimizer"]["params"])
        raise KeyboardInterrupt

    monkeypatch.setattr(deepspeed, "initialize", initialize)
    config = resolve_deepspeed_config(ZERO2, load_recipe("tiny"), 1)
    with pytest.raises(KeyboardInterrupt):
        DeepSpeedEngine(meta_model(torch.bfloat16), config, RANKS)
    assert asked[0]["fused"] is True and asked[0]["foreach"] is False and asked[0]["torch_adam"] is True
    assert "fused" not in config["optimizer"]["params"], "the run's own config stays as the file says"
    parameters = [torch.nn.Parameter(torch.zeros(3))]
    assert torch.optim.AdamW(parameters, **adamw_kernel(META)).defaults["fused"] is True


def test_the_cpu_gets_the_loops_over_lists(base: Path) -> None:
    engine = open_engine(base)
    assert {(group["fused"], group["foreach"]) for group in groups_of(engine)} == {(False, True)}
    engine.close()


def test_the_loops_over_lists_give_the_bits_of_the_plain_loop() -> None:
    found = []
    for kernel in (adamw_kernel(CPU), {"foreach": False, "fused": False}):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(size)) for size in (1003, 64, 5)]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, **kernel)
        for _ in range(4):
            for one in parameters:
                one.grad = torch.randn_like(one)
            optimizer.step()
        found.append([one.detach() for one in parameters])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("written", [{"fused": None, "foreach": None}, {"fused": True, "foreach": False}])
def test_a_checkpoint_of_another_kernel_goes_on_with_this_one(
    written: dict[str, bool | None], base: Path, tmp_path: Path
) -> None:
    """As it was before there was a choice, and as a GPU writes it: the same losses, bit for bit."""
    engine = open_engine(base)
    for _ in range(2):
        engine.step([batch()])
    for group in groups_of(engine):
        group.update(written)
    make_store(tmp_path).save(engine.steps, {"fingerprint": "f"}, engine.snapshot().write)
    for group in groups_of(engine):
        group.update(adamw_kernel(CPU))
    expected = [engine.step([batch()]).loss for _ in range(3)]
    engine.close()
    resumed = open_engine(base)
    resumed.restore(newest(tmp_path))
    assert {(group["fused"], group["foreach"]) for group in groups_of(resumed)} == {(False, True)}
    assert [resumed.step([batch()]).loss for _ in range(3)] == expected
    resumed.close()


def test_control_a_restored_engine_would_take_up_the_kernel_of_the_file(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(base)
    engine.step([batch()])
    for group in groups_of(engine):
        group.update({"fused": True, "foreach": False})
    make_store(tmp_path).save(engine.steps, {"fingerprint": "f"}, engine.snapshot().write)
    engine.close()
    monkeypatch.setattr(engine_module, "keep_kernel", lambda *_: None)
    resumed = open_engine(base)
    resumed.restore(newest(tmp_path))
    assert {group["fused"] for group in groups_of(resumed)} == {True}
    resumed.close()


def test_step_counters_go_where_the_kernel_reads_them() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter], **adamw_kernel(CPU))
    parameter.grad = torch.ones(3)
    optimizer.step()
    keep_kernel(optimizer, META)
    assert optimizer.state[parameter]["step"].device == META
    assert optimizer.param_groups[0]["fused"] is True

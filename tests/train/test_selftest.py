"""The self-tests on a real engine of one rank: each passes on a sound run and stops a broken one."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from persianmind.common.errors import SelfTestError
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine, _Fp32Gradients, _Marks
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.bases import resolve_base
from persianmind.model.documents import documents_of
from persianmind.recipe.loading import load_recipe
from persianmind.train.selftest import run_self_tests
from tests.support.launch import ZERO2
from tests.support.log import logged

RANKS = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)


@pytest.fixture(scope="module", autouse=True)
def _group_of_one() -> None:
    prepare_environment()
    start_distributed(RANKS)


@pytest.fixture
def model() -> AdaptedModel:
    recipe = load_recipe("tiny")
    return build_adapted(resolve_base(recipe.base), recipe, [[5, 6], [7], [8, 9]], 1024)


def _batch(size: int = 1) -> dict[str, Any]:
    """New ids are among them, or new embeddings could not move."""
    ids = np.random.default_rng(0).integers(0, 1027, (size, 64))
    ids[0, :6] = [1024, 1025, 1026, 1024, 1025, 1026]
    labels = np.roll(ids, -1, axis=1)
    labels[:, -1] = -100
    return {"input_ids": ids, "position_ids": np.tile(np.arange(64), (size, 1)), "labels": labels}


def _run(model: AdaptedModel, batch: dict[str, Any] | None = None) -> list[str]:
    config = resolve_deepspeed_config(ZERO2, load_recipe("tiny"), 1)
    with logged(logging.INFO) as lines:
        run_self_tests(
            model, lambda: DeepSpeedEngine(model, config, RANKS), [batch or _batch()], torch.device("cpu")
        )
    return lines


def test_sound_run_passes_and_every_value_is_put_back(model: AdaptedModel) -> None:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    lines = _run(model)
    assert len(lines) == 3 and all(line.startswith("self-test: ") for line in lines)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("cleaned", [True, False])
def test_the_throw_away_engine_is_gone_afterwards(
    model: AdaptedModel, cleaned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its masters, moments and hooks; control: what DeepSpeed's own end leaves holds them all."""
    if not cleaned:
        monkeypatch.setattr(_Marks, "remove", lambda self: None)
    held: list[weakref.ref[Any]] = []
    config = resolve_deepspeed_config(ZERO2, load_recipe("tiny"), 1)

    def open_engine() -> DeepSpeedEngine:
        engine = DeepSpeedEngine(model, config, RANKS)
        optimizer = engine._deepspeed.optimizer
        held.extend(map(weakref.ref, (optimizer, optimizer.single_partition_of_fp32_groups[0])))
        return engine

    run_self_tests(model, open_engine, [_batch()], torch.device("cpu"))
    assert [one() is None for one in held] == [cleaned] * 2
    assert (not model._forward_hooks and not model._forward_pre_hooks) is cleaned


def test_a_leaking_pack_stops_the_run(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least leak there can be, a millionth of it, in one layer's second sequence; and a whole one."""
    layer: Any = model.causal_lm.get_decoder().layers[1]  # type: ignore[operator]
    ordinary = layer.forward

    def leaking(hidden: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        return ordinary(hidden, *arguments, **options) + 1e-6 * hidden.flatten(0, 1)[0]

    with monkeypatch.context() as patched, pytest.raises(SelfTestError, match="see each other"):
        patched.setattr(layer, "forward", leaking)
        _run(model, _batch(2))

    monkeypatch.setattr("persianmind.train.selftest.documents_of", lambda positions, device: documents_of(
        np.broadcast_to(np.arange(positions.shape[1]), positions.shape), device))  # fmt: skip
    with pytest.raises(SelfTestError, match="see each other"):
        _run(model)


def test_an_isolation_test_that_sees_nothing_is_refused(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persianmind.train.selftest.documents_of", lambda positions, device: documents_of(
        np.zeros_like(positions), device))  # fmt: skip
    with pytest.raises(SelfTestError, match="see each other"):
        _run(model)


def test_a_stage_without_new_pieces_passes(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the first tokens as they are would stop a sound run on an untied base."""
    batch = _batch()
    batch["input_ids"] = batch["input_ids"] % 1024
    assert len(_run(model, batch)) == 3
    monkeypatch.setattr("persianmind.train.selftest.moving_sequence", lambda one, *_: one)
    with pytest.raises(SelfTestError, match="did not move"):
        _run(model, batch)


def test_a_wrong_reduction_stops_the_run(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = DeepSpeedEngine._accumulate
    monkeypatch.setattr(
        DeepSpeedEngine, "_accumulate", lambda self, batches, scale: ordinary(self, batches, scale * 1.1)
    )
    with pytest.raises(SelfTestError, match="differs from the single-process one"):
        _run(model)


def test_a_step_that_trains_nothing_stops_the_run(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeepSpeedEngine, "apply", lambda self: None)
    with pytest.raises(SelfTestError, match="did not move"):
        _run(model)


def test_gradients_are_summed_in_fp32_over_micro_batches() -> None:
    """1 + 256 / 512: each small part is below half a unit in the last place of a bf16 sum."""
    parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    holder = torch.nn.Module()
    holder.trained = lambda: {"p": parameter}  # type: ignore[assignment]
    parts = [1.0, *[1 / 512] * 256]
    with _Fp32Gradients(holder) as gradients:  # type: ignore[arg-type]
        for part in parts:
            (parameter * part).sum().backward()
            gradients.add()
    assert parameter.grad is not None and parameter.grad.tolist() == [1.5] * 4
    parameter.grad = None
    for part in parts:  # control: autograd's own bf16 accumulation loses them all
        (parameter * part).sum().backward()
    assert parameter.grad is not None and parameter.grad.tolist() == [1.0] * 4

"""Strict mode: tried on a micro-batch, kept on resume, named where an operation refuses it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persianmind.common.errors import MachineError
from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import AdaptedModel
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, update_results
from persianmind.run.records import Determinism
from persianmind.train import assemble, determinism, finish
from persianmind.train.determinism import apply_determinism, choose_determinism, refused_operation, set_strict
from tests.model.helpers import BASE_VOCAB, PIECES, make_recipe
from tests.model.test_attention import make_model
from tests.support.log import logged

CPU = torch.device("cpu")
RANK = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)


class OneRank:
    """A group of this rank, and of others that say `others`."""

    rank, world_size = 0, 1

    def __init__(self, *others: Any) -> None:
        self.others = others

    def all_gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.fixture
def model() -> AdaptedModel:
    from persianmind.model.adapted import adapt

    return adapt(make_model("llama"), make_recipe(), PIECES, BASE_VOCAB)


def batch() -> dict[str, Any]:
    ids = np.arange(48)[None]
    return {"input_ids": ids, "position_ids": ids, "labels": ids}


class _OnlyInAnyOrder(torch.autograd.Function):
    """An operation whose backward pass has no deterministic kernel, as some have none on a GPU."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(
                "some_backward_cuda does not have a deterministic implementation, but you set "
                "'torch.use_deterministic_algorithms(True)'."
            )
        return grad


def plant(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = model.hidden_states
    monkeypatch.setattr(
        model, "hidden_states", lambda *given, **named: _OnlyInAnyOrder.apply(ordinary(*given, **named))
    )


def test_strict_where_a_micro_batch_runs_in_it(model: AdaptedModel) -> None:
    assert choose_determinism("auto", model, batch(), CPU, OneRank()) == Determinism(strict=True)
    assert not torch.are_deterministic_algorithms_enabled()  # that is `apply_determinism`'s
    assert all(value.grad is None for value in model.parameters())


def test_a_refusal_on_an_imitated_gpu_is_named_and_the_run_goes_on(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(model, monkeypatch)
    chosen = choose_determinism("auto", model, batch(), CPU, OneRank())
    assert chosen == Determinism(strict=False, refused="some_backward_cuda")
    with logged(logging.INFO) as lines:
        apply_determinism(chosen)
    assert len(lines) == 1 and "some_backward_cuda has no deterministic implementation" in lines[0]
    model(**{n: torch.from_numpy(a) for n, a in batch().items()}).backward()  # and now it runs
    with pytest.raises(MachineError, match="deterministic=true: some_backward_cuda has no"):
        choose_determinism(True, model, batch(), CPU, OneRank())


def test_a_refusal_on_another_rank_is_one_of_all(model: AdaptedModel) -> None:
    chosen = choose_determinism("auto", model, batch(), CPU, OneRank("other_op"))
    assert chosen == Determinism(strict=False, refused="other_op")


def test_false_tries_nothing(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persianmind.train.determinism.refused_operation", lambda *_: pytest.fail("tried"))
    assert choose_determinism(False, model, batch(), CPU, OneRank()) == Determinism(strict=False)


def test_other_errors_are_not_taken_for_a_refusal(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(model, "hidden_states", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        refused_operation(model, batch(), CPU)
    assert not torch.are_deterministic_algorithms_enabled()


def test_strict_mode_is_torchs_own_and_fills_no_memory() -> None:
    set_strict(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


class OneDeviceBackend:
    """What `_set_determinism` asks a backend for."""

    def device(self, ranks: Ranks) -> torch.device:
        return CPU


@pytest.mark.parametrize("recorded", [True, False])
def test_what_a_run_began_with_is_kept_on_resume(
    recorded: bool, tmp_path: Path, model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which the trial would come out otherwise changes nothing; control: a fresh run tries."""
    folder, trials = RunFolder(tmp_path), []
    monkeypatch.setattr(
        determinism, "refused_operation", lambda *_: trials.append(1) or ("op" if recorded else None)
    )

    def start() -> None:
        assemble._set_determinism(make_recipe(), folder, model, batch(), OneDeviceBackend(), RANK)  # type: ignore[arg-type]

    update_results(folder, determinism=Determinism(strict=recorded))
    start()
    assert torch.are_deterministic_algorithms_enabled() is recorded and trials == []
    folder.results.unlink()
    start()
    assert torch.are_deterministic_algorithms_enabled() is not recorded and trials == [1]
    assert read_results(folder).determinism == Determinism(
        strict=not recorded, refused="op" if recorded else None
    )


def test_the_end_of_a_run_is_not_held_to_strict_mode(
    tmp_path: Path, model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export check and samples use operations that no trial has seen."""
    seen: list[bool] = []

    def first_thing_done(_: AdaptedModel) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "model_size", first_thing_done)
    set_strict(True)
    with pytest.raises(KeyboardInterrupt):
        finish.finish_run(make_recipe(), RunFolder(tmp_path), model, 1, None, lambda run: run)
    assert seen == [False]

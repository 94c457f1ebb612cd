"""How often a step makes the host wait for a GPU: counted on the CPU, by the reads that would wait there."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.groups import GROUPS
from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.bases import resolve_base
from persianmind.recipe.loading import load_recipe
from tests.support.launch import ZERO2

RANKS = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
READS = {
    f"aten.{name}.default"
    for name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")
}
METHODS = ("tolist", "cpu", "numpy")  # on the CPU these never reach the dispatcher
# Reads offsets that lie on the host whatever the device is: on an imitated GPU nothing else can be read.
HOST_READERS = {"document_attention.py"}


@pytest.fixture(scope="module", autouse=True)
def _group_of_one() -> None:
    prepare_environment()
    start_distributed(RANKS)


class Waits(TorchDispatchMode):
    """`places`: where a value was read, "ours" or DeepSpeed's."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in READS:
            self.note(str(func))
        return func(*args, **(kwargs or {}))

    def note(self, what: str) -> None:
        files = [frame.filename for frame in traceback.extract_stack()]
        ours = max((i for i, name in enumerate(files) if "/persianmind/" in name), default=-1)
        theirs = max((i for i, name in enumerate(files) if "/deepspeed/" in name and i > ours), default=-1)
        inside = theirs > ours and "/persianmind/engine/deepspeed/" not in files[theirs]
        owner = "deepspeed" if inside else "ours"
        line = traceback.extract_stack()[theirs if inside else ours]
        if Path(line.filename).name in HOST_READERS:
            return
        self.places[owner] += 1
        self.places[f"{owner}: {what} at {Path(line.filename).name}:{line.lineno}"] += 1


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    from deepspeed.accelerator import get_accelerator

    waits = Waits()
    with monkeypatch.context() as patched, waits:
        for name in METHODS:
            ordinary = getattr(torch.Tensor, name)

            def noting(
                self: torch.Tensor, *given: Any, _o: Any = ordinary, _n: str = name, **named: Any
            ) -> Any:
                waits.note(_n)
                return _o(self, *given, **named)

            patched.setattr(torch.Tensor, name, noting)
        patched.setattr(get_accelerator(), "synchronize", lambda *_: waits.note("synchronize"))
        yield waits


def batches(count: int) -> list[dict[str, Any]]:
    ids = np.random.default_rng(0).integers(0, 1027, (1, 64))
    ids[0, :3] = [1024, 1025, 1026]
    positions = np.concatenate([np.arange(24), np.arange(40)])[None]
    return [{"input_ids": ids, "position_ids": positions, "labels": np.where(positions, ids, -100)}] * count


def waits_of_a_step(
    monkeypatch: pytest.MonkeyPatch, accumulation: int, **config_changes: Any
) -> Counter[str]:
    recipe = load_recipe("tiny", [f"train.global_batch_size={accumulation}"])
    model: AdaptedModel = build_adapted(resolve_base(recipe.base), recipe, [[5, 6], [7], [8, 9]], 1024)
    config = {**resolve_deepspeed_config(ZERO2, recipe, 1), **config_changes}
    engine = DeepSpeedEngine(model, config, RANKS)
    engine.set_rates(dict.fromkeys(GROUPS, 1e-3))
    for _ in range(3):  # DeepSpeed times nothing before
        engine.step(batches(1))
    with counted(monkeypatch) as waits:
        engine.step(batches(accumulation))
    engine.close()
    return waits.places


def test_a_step_waits_as_often_whatever_the_accumulation(monkeypatch: pytest.MonkeyPatch) -> None:
    one, sixteen = (waits_of_a_step(monkeypatch, accumulation) for accumulation in (1, 16))
    assert one == sixteen, (one, sixteen)
    assert one["ours"] <= 3, one


def test_control_deepspeeds_throughput_timer_would_wait_at_every_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = {"throughput": {"enabled": True, "synchronized": True}}
    found = waits_of_a_step(monkeypatch, 4, timers=timers)
    assert sum(count for name, count in found.items() if "synchronize" in name) >= 4, found


def test_control_targets_that_the_host_must_look_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from persianmind.engine.deepspeed import engine as module

    ordinary = module.model_inputs
    monkeypatch.setattr(
        module,
        "model_inputs",
        lambda *given: {n: v for n, v in ordinary(*given).items() if n != "targets_N"},
    )
    assert waits_of_a_step(monkeypatch, 4)["ours"] >= 4

"""Recompute that a run decides: once, for its smallest rank, and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from persianmind.engine.ranks import Ranks
from persianmind.estimate.bases import base_config
from persianmind.estimate.gpus import find_gpu
from persianmind.estimate.target import Target
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import decided_recipe, read_results
from persianmind.run.records import Recompute
from persianmind.train import recompute
from tests.support.launch import ZERO2
from tests.support.log import logged

GB = 10**9
AUTO = ["train.gradient_checkpointing=auto", "train.precision=bf16"]
RANK = Ranks(rank=0, world_size=2, local_rank=0, local_size=2)


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What this rank has, then what the other one has."""
    has = [20 * GB, 20 * GB]

    class TwoRanks:
        def __init__(self, ranks: Ranks) -> None:
            pass

        def all_gather(self, value: Any) -> list[Any]:
            return [value, has[1]] if isinstance(value, int) else [value, None]

    monkeypatch.setattr(recompute, "TorchGroup", TwoRanks)
    monkeypatch.setattr(
        "persianmind.estimate.target.target_here",
        lambda *_, **__: Target(find_gpu("RTX 3090"), has[0], "imitated"),
    )
    yield has


def decide(folder: Path, *overrides: str) -> tuple[Recipe, list[str]]:
    recipe = load_recipe("tiny", [*AUTO, *overrides])
    with logged(logging.INFO) as lines:
        decided = recompute.decide_recompute(
            recipe,
            RunFolder(folder),
            base_config(recipe.base),
            (1000, 400),
            engine_config=ZERO2,
            device=torch.device("cpu"),
            ranks=RANK,
        )
    return decided, [line for line in lines if "recompute" in line]


def test_it_is_decided_said_and_written(tmp_path: Path, usable: list[int]) -> None:
    decided, (line,) = decide(tmp_path)
    assert decided.train.gradient_checkpointing == "off"
    assert "recompute: nothing; memory per rank" in line and "of 20.00 GB" in line and "(auto)" in line
    record = read_results(RunFolder(tmp_path)).recompute
    assert record is not None and record.setting == "off" and 0 < record.needed_bytes < record.usable_bytes
    assert decided_recipe(load_recipe("tiny", AUTO), RunFolder(tmp_path)) == decided


def test_the_smallest_rank_decides(tmp_path: Path, usable: list[int]) -> None:
    usable[1] = GB // 10
    decided, (line,) = decide(tmp_path)
    assert decided.train.gradient_checkpointing == "full" and "it will not fit" in line


def test_a_run_keeps_what_it_began_with(tmp_path: Path, usable: list[int]) -> None:
    """On a smaller machine too, which is said; control: a fresh run there decides otherwise."""
    decide(tmp_path / "run")
    usable[:] = [GB // 10] * 2
    kept, (line,) = decide(tmp_path / "run")
    assert kept.train.gradient_checkpointing == "off"
    assert "it will not fit" in line and "(as this run began)" in line
    assert decide(tmp_path / "new")[0].train.gradient_checkpointing == "full"


def test_what_the_recipe_states_is_not_decided(tmp_path: Path, usable: list[int]) -> None:
    decided, lines = decide(tmp_path, "train.gradient_checkpointing={full_layers: 1}")
    assert decided == load_recipe("tiny", [*AUTO, "train.gradient_checkpointing={full_layers: 1}"])
    assert lines == [] and read_results(RunFolder(tmp_path)).recompute is None


def test_layers_read_back_as_they_were_written() -> None:
    record = Recompute.model_validate({"setting": {"full_layers": 3}, "needed_bytes": 1, "usable_bytes": 2})
    assert Recompute.model_validate(record.model_dump(mode="json")) == record

"""What `gradient_checkpointing: auto` comes to, by the memory there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from persianmind.estimate.bases import VocabularySize
from persianmind.estimate.gpus import find_gpu
from persianmind.estimate.plan import RecipePlan, estimate_recipe
from persianmind.estimate.planner import Planner
from persianmind.estimate.recompute import choose_recompute, in_words
from persianmind.estimate.target import Target, host_part, limited
from persianmind.recipe.loading import load_recipe
from persianmind.recipe.train import FullLayers
from tests.estimate.real_models import ADDED, VOCAB, Shape

AUTO = "train.gradient_checkpointing=auto"
LAYERS = 9
SHAPE = Shape(False, "none", "off", 512, layers=LAYERS)
TARGET = Target(find_gpu("RTX 3090"), 0, "a test")


def planner_with(usable_bytes: int) -> Planner:
    size = VocabularySize(VOCAB, ADDED, ADDED, "a test")
    return Planner(SHAPE.config, size, replace(TARGET, usable_bytes=usable_bytes), 1, None)


@pytest.fixture(scope="module")
def planner() -> Planner:
    """Its traces serve all tests here."""
    return planner_with(0)


def needed(planner: Planner, setting: Any) -> int:
    return planner.estimate(SHAPE.recipe.with_recompute(setting)).peak.with_reserve


def chosen(planner: Planner, usable_bytes: int) -> Any:
    here = replace(planner, target=replace(TARGET, usable_bytes=usable_bytes))
    return here.estimate(SHAPE.recipe.with_recompute("auto")).recipe.train.gradient_checkpointing


def test_the_fastest_way_that_fits_to_the_byte(planner: Planner) -> None:
    """Each way is taken from the byte on with which it fits, and with one byte less the next one is."""
    ways = ["off", "selective", *(FullLayers(full_layers=count) for count in range(1, LAYERS)), "full"]
    amounts = [needed(planner, way) for way in ways]
    assert amounts == sorted(amounts, reverse=True)
    for index, (way, amount) in enumerate(zip(ways, amounts, strict=True)):
        assert needed(planner, chosen(planner, amount)) == amount
        if amounts.count(amount) == 1:
            assert chosen(planner, amount) == way
            assert chosen(planner, amount - 1) == ways[min(index + 1, len(ways) - 1)]
    assert chosen(planner, 0) == "full"


def test_few_traces_serve_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a run waits for them: two for each of off, selective, full, and three for all mixtures."""
    from persianmind.estimate import trace

    made: list[int] = []
    real = trace.trace_micro_batch

    def counted(model: Any, *given: Any, **named: Any) -> Any:
        made.append(model.layer_count)
        return real(model, *given, **named)

    monkeypatch.setattr(trace, "trace_micro_batch", counted)
    planner = planner_with(0)
    for count in range(2, LAYERS - 1):
        needed(planner, FullLayers(full_layers=count))
    assert made == [4, 5, 5]
    for way in ("off", "selective", "full"):
        needed(planner, way)
    assert made[3:] == [2, 3] * 3


def test_the_search_asks_for_few_ways() -> None:
    asked: list[Any] = []

    def headroom(setting: Any) -> int:
        asked.append(setting)
        return (
            -1 if isinstance(setting, str) and setting != "full" else getattr(setting, "full_layers", 80) - 57
        )

    assert choose_recompute(headroom, 80) == FullLayers(full_layers=57)
    assert len(asked) <= 10


def test_a_recipe_fits_by_the_least_that_auto_can_come_to(planner: Planner) -> None:
    auto, full = (SHAPE.recipe.with_recompute(way) for way in ("auto", "full"))
    assert planner.headroom(auto) == planner.headroom(full)


def test_the_plan_says_what_it_chose_and_keeps_to_memory_gb() -> None:
    bf16 = ["train.precision=bf16", "train.micro_batch_size=2"]

    def planned(*overrides: str) -> RecipePlan:
        return estimate_recipe("demo", [*bf16, *overrides], 1, gpu="RTX 3090")

    large = planned(AUTO)
    assert large.as_json()["gradient_checkpointing"] == "off" and large.fits
    assert large.recipe.train.gradient_checkpointing == "auto"  # what was asked stays
    usable = planned("train.gradient_checkpointing=selective").estimate.peak.with_reserve + 2**10
    small = planned(AUTO, f"train.memory_gb={usable / 2**30:.9f}")
    assert small.as_json()["gradient_checkpointing"] == "selective" and small.fits
    assert abs(small.planner.target.usable_bytes - usable) < 10


def test_a_gpu_does_not_grow_by_memory_gb() -> None:
    recipe = load_recipe("tiny", ["train.memory_gb=100"])
    assert limited(replace(TARGET, usable_bytes=7), recipe).usable_bytes == 7
    assert limited(Target(None, 7, "CPUs"), recipe).usable_bytes == 100 * 2**30


def test_a_host_is_shared_by_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persianmind.estimate.target.available_bytes", lambda: 16_000_000_000)
    assert host_part(1) == 14_500_000_000 and host_part(4) == 2_500_000_000 and host_part(16) == 0


def test_words() -> None:
    assert in_words("off", 30) == "nothing"
    assert in_words(FullLayers(full_layers=10), 30) == "10 of 30 layers whole, the others selectively"

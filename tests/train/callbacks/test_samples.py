"""Samples of the base and of every stage: who writes them, when, and how often."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.bases import resolve_base
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results
from persianmind.train.callbacks.samples import SampleCallback
from tests.support.log import logged

PROMPTS = ["The import system", "x = 1"]
RECIPE = load_recipe("tiny", [f"evaluate.prompts={PROMPTS}", "evaluate.max_new_tokens=6"])


class Rank:
    """One rank's context; `met`: how often it met the others. Rank 0's word is that of all."""

    def __init__(self, folder: RunFolder, model: AdaptedModel, *, rank: int = 0, others_say: int = 0) -> None:
        self.recipe, self.folder, self.step = RECIPE, folder, 0
        self.is_main = rank == 0
        self.met = self.beats = 0
        self.marked: list[str] = []
        self.engine = SimpleNamespace(model=model, max=lambda value: self._meet(value, others_say))

    def _meet(self, value: int, others_say: int) -> int:
        self.met += 1
        return max(value, others_say)

    def mark(self, phase: str, stage: str) -> None:
        self.marked.append(stage)

    def on_progress(self) -> None:
        self.beats += 1


@pytest.fixture(scope="module")
def model() -> AdaptedModel:
    """Its tables are split, and no adapter or new token says anything yet."""
    return build_adapted(resolve_base("random://llama"), RECIPE, [(5, 6), (7, 8)], 1024)


def rank(tmp_path: Path, model: AdaptedModel, **options: Any) -> Any:
    tmp_path.mkdir(exist_ok=True)
    folder = RunFolder(tmp_path)
    if not folder.vocab.exists():
        folder.vocab.symlink_to(resolve_base("random://llama"))
    return Rank(folder, model, **options)


def stage_end(step: int, name: str = "pretrain") -> Any:
    return SimpleNamespace(stage=SimpleNamespace(name=name), last_step=step)


def written(context: Any) -> list[tuple[str, str]]:
    return [(one.stage, one.prompt) for one in read_results(context.folder).samples]


def test_the_base_and_a_stage_are_sampled_once_each(tmp_path: Path, model: AdaptedModel) -> None:
    context, callback = rank(tmp_path, model), SampleCallback(RECIPE)
    model.train()
    callback.start(context)
    context.step = 16
    callback.end_stage(context, stage_end(16))
    expected = [
        ("base", PROMPTS[0]),
        ("base", PROMPTS[1]),
        ("pretrain", PROMPTS[0]),
        ("pretrain", PROMPTS[1]),
    ]
    assert written(context) == expected and context.marked == ["base", "pretrain"]
    assert context.beats > 0 and model.training
    before, beats = context.folder.results.read_bytes(), context.beats
    SampleCallback(RECIPE).start(rank(tmp_path, model))
    callback.end_stage(context, stage_end(16))
    assert context.folder.results.read_bytes() == before and context.beats == beats


def test_ranks_meet_as_often_as_each_other(tmp_path: Path, model: AdaptedModel) -> None:
    """Once to hear whether there is anything to do, then after each prompt; also when all is done already."""
    first = rank(tmp_path / "a", model)
    other = rank(tmp_path / "a", model, rank=1, others_say=1)
    for context in (first, other):
        SampleCallback(RECIPE).start(context)
    assert first.met == other.met == 1 + len(PROMPTS)
    again = rank(tmp_path / "a", model)
    idle = rank(tmp_path / "a", model, rank=1)
    for context in (again, idle):
        SampleCallback(RECIPE).start(context)
    assert again.met == idle.met == 1
    assert other.beats == idle.beats == 0 and len(written(first)) == len(PROMPTS)


def test_a_resumed_run_does_not_sample_what_is_gone(tmp_path: Path, model: AdaptedModel) -> None:
    """At step 20 neither the base nor a stage that ended at step 16 is what the weights are."""
    context, callback = rank(tmp_path, model), SampleCallback(RECIPE)
    context.step = 20
    callback.start(context)
    callback.end_stage(context, stage_end(16))
    assert written(context) == [] and context.met == 0
    callback.end_stage(context, stage_end(20, "instruct-1"))
    assert {stage for stage, _ in written(context)} == {"instruct-1"}


def test_the_base_says_nothing_in_new_tokens(tmp_path: Path, model: AdaptedModel) -> None:
    """A new token that would always be the likeliest is not in the base's vocabulary."""
    table = model.output_table.new_AD
    assert table is not None
    before = table.detach().clone()
    context, callback = rank(tmp_path, model), SampleCallback(RECIPE)
    with torch.no_grad():
        callback.start(context)
        plain = read_results(context.folder).samples
        table.copy_(1e3 * torch.sign(torch.randn(table.shape, generator=torch.Generator().manual_seed(0))))
        loud = rank(tmp_path / "loud", model)
        callback.start(loud)
        table.copy_(before)
    assert read_results(loud.folder).samples == plain


def test_without_prompts_nobody_meets(tmp_path: Path, model: AdaptedModel) -> None:
    context = rank(tmp_path, model)
    SampleCallback(load_recipe("tiny", ["evaluate.prompts=[]"])).start(context)
    assert context.met == 0 and not context.folder.results.exists()


def test_a_base_that_cannot_write_dialogues_is_left_out_and_said(tmp_path: Path, model: AdaptedModel) -> None:
    recipe = load_recipe("tiny", [f"evaluate.prompts={PROMPTS}", "data.prompt=chat_template"])
    context = rank(tmp_path, model)
    context.recipe = recipe
    with logged() as lines:
        SampleCallback(recipe).start(context)
    assert lines == [line for line in lines if "samples base: none" in line] and len(lines) == 1
    assert written(context) == [] and context.met == 1

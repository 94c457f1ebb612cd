"""What is prepared before step 1, what is left to be built beside training, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.atomic import write_text
from persianmind.common.errors import DataError, RecipeError
from persianmind.data.build import pipeline as batches_module
from persianmind.data.build.service import BackgroundBuild
from persianmind.data.manifest import BUILDING, MANIFEST
from persianmind.data.read.incremental import read_failure, write_failure
from persianmind.recipe import Recipe
from persianmind.recipe.loading import dump_recipe, load_recipe
from persianmind.train.prepare import Prepared, prepare, read_prepared
from persianmind.train.stages import plan_stages
from tests.data.helpers import sentences, write_jsonl
from tests.data.read.helpers import build_part


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "BATCH_RECORDS", 40)


def _recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "poems.jsonl"
    if not path.exists():
        write_jsonl(path, [{"text": text} for text in sentences(600)])
    small = [
        "vocab.new_tokens=50",
        "vocab.sources=[messages]",
        "data.sequences_per_shard=8",
        "heldout.sources=[english]",
    ]
    return load_recipe("tiny", [f"sources.poems.uri={path}", *small, *overrides])


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vocabulary of these recipes, made once."""
    folder = tmp_path_factory.mktemp("vocab")
    recipe = _recipe(folder, "data.shuffle_block_sequences=8")
    _prepare(recipe, folder / "run")
    return folder / "run" / "vocab"


@pytest.fixture
def run(tmp_path: Path, vocab: Path) -> Path:
    """A run folder with a vocabulary and nothing else."""
    shutil.copytree(vocab, tmp_path / "run" / "vocab")
    return tmp_path / "run"


def _prepare(recipe: Recipe, run: Path) -> tuple[Prepared, list[str]]:
    write_text(run / "recipe.yaml", dump_recipe(recipe))
    said: list[str] = []
    return prepare(recipe, run, said.append, None), said


def test_everything_in_tokens_is_left_to_the_builder_and_nothing_is_built_twice(
    tmp_path: Path, run: Path
) -> None:
    recipe = _recipe(tmp_path)
    prepared, said = _prepare(recipe, run)
    names = ["poems", "messages", "english", "translate", "interpret"]
    assert prepared.to_build == names and not (run / "data").exists()
    assert any("built while training runs" in line for line in said)
    assert read_prepared(run) == prepared
    write_failure(run / "data" / "poems", "of an earlier attempt")
    assert _prepare(recipe, run)[0] == prepared and read_failure(run / "data" / "poems") is None
    log = run / "builder.log"
    with BackgroundBuild(run / "recipe.yaml", run / "vocab", run / "data", names, log) as builder:
        assert builder._process is not None and builder._process.wait(60) == 0, log.read_text()
    again, said = _prepare(recipe, run)
    assert again.to_build == [] and all(again.sequences_by_source.values())
    assert not any("built while" in line for line in said)
    assert again.fingerprints == prepared.fingerprints


@pytest.mark.parametrize(
    ("overrides", "whole"),
    [
        (["stages.1.tokens=null", "stages.1.epochs=1"], {"translate", "english"}),
        (["data.shuffle_block_sequences=null"], {"poems", "messages", "english", "translate", "interpret"}),
        (["data.mixture_temperature=2"], {"poems", "messages", "english", "translate", "interpret"}),
    ],
)
def test_what_decides_something_before_step_1_is_built_at_once(
    tmp_path: Path, run: Path, overrides: list[str], whole: set[str]
) -> None:
    recipe = _recipe(tmp_path, *overrides)
    prepared, _ = _prepare(recipe, run)
    assert {name for name, sequences in prepared.sequences_by_source.items() if sequences} == whole
    assert {path.parent.name for path in run.glob(f"data/*/{MANIFEST}")} == whole
    assert len(plan_stages(recipe, prepared.sequences_by_source)) == 3


def test_a_source_that_changed_under_a_run_is_refused_once_steps_were_done(tmp_path: Path, run: Path) -> None:
    recipe = _recipe(tmp_path)
    _prepare(recipe, run)
    build_part(recipe, "poems", run / "vocab", run / "data", 2)
    (run / "checkpoints" / "step-4").mkdir(parents=True)
    assert "poems" in _prepare(recipe, run)[0].to_build, "the control: unchanged, it goes on"
    before = {path: path.read_bytes() for path in run.glob("data/poems/*")}
    write_jsonl(tmp_path / "poems.jsonl", [{"text": text} for text in sentences(601)])
    with pytest.raises(DataError, match=r"sources\.poems is not what .* was begun with, and steps were done"):
        _prepare(recipe, run)
    assert {path: path.read_bytes() for path in run.glob("data/poems/*")} == before
    (run / "checkpoints" / "step-4").rmdir()
    assert "poems" in _prepare(recipe, run)[0].to_build, "without steps it is begun anew"
    assert (run / "data" / "poems" / BUILDING).exists()


def test_stage_lengths_need_the_rows_of_epochs_alone() -> None:
    recipe = load_recipe("tiny")
    unknown: dict[str, Any] = dict.fromkeys(recipe.sources)
    assert [plan.steps for plan in plan_stages(recipe, unknown)] == [16, 7, 7]
    with pytest.raises(RecipeError, match="'poems' has no sequences after filtering"):
        plan_stages(recipe, {**unknown, "poems": 0})
    by_epochs = load_recipe("tiny", ["stages.0.tokens=null", "stages.0.epochs=1"])
    with pytest.raises(ValueError, match="a source that is not built"):
        plan_stages(by_epochs, unknown)
    sequences = {**unknown, "poems": 10, "messages": 5, "english": 1}
    assert [plan.steps for plan in plan_stages(by_epochs, sequences)] == [4, 7, 7]

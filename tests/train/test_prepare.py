"""What is prepared before step 1, what is left to be built beside training, and what is refused."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import (
    ChangedDataError,
    DataError,
    RecipeError,
    RunFolderError,
    RunInterruptedError,
    VocabError,
)
from persianmind.data.build import pipeline
from persianmind.data.manifest import BUILDING, MANIFEST
from persianmind.data.read.incremental import read_failure, write_failure
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.records import DataUse, Prepared
from persianmind.text import corpus as corpus_module
from persianmind.train.consumed import refuse_other_sources
from persianmind.train.prepare import background_build, prepare, read_prepared, wait_until_prepared
from persianmind.train.stages import plan_stages
from tests.data.helpers import sentences, write_jsonl
from tests.data.read.helpers import build_part


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BATCH_RECORDS", 40)


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
    prepare(recipe, RunFolder(folder / "run"), lambda word, what: None)
    return folder / "run" / "vocab"


@pytest.fixture
def run(tmp_path: Path, vocab: Path) -> RunFolder:
    """A run folder with a vocabulary and nothing else."""
    shutil.copytree(vocab, tmp_path / "run" / "vocab")
    return RunFolder(tmp_path / "run")


def _prepare(recipe: Recipe, run: RunFolder) -> tuple[Prepared, list[str]]:
    """What was prepared, and the words of what was."""
    words: list[str] = []
    return prepare(recipe, run, lambda word, what: words.append(word)), words


def test_everything_in_tokens_is_left_to_the_builder_and_nothing_is_built_twice(
    tmp_path: Path, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "persianmind")
    recipe = _recipe(tmp_path)
    prepared, words = _prepare(recipe, run)
    names = ["poems", "messages", "english", "translate", "interpret"]
    assert prepared.to_build == names and not run.data.exists()
    assert words == ["heldout", "base"]
    assert "prepare: base model" in caplog.messages
    assert any("built while training runs" in line for line in caplog.messages)
    assert read_prepared(run) == prepared
    write_failure(run.shards("poems"), "of an earlier attempt")
    assert _prepare(recipe, run)[0] == prepared and read_failure(run.shards("poems")) is None
    with background_build(recipe, run, prepared) as builder:
        assert builder._process is not None and builder._process.wait(60) == 0, run.builder_log.read_text()
    caplog.clear()
    again, _ = _prepare(recipe, run)
    assert again.to_build == [] and all(again.sequences_by_source.values())
    assert not any("built while" in line for line in caplog.messages)
    assert again.fingerprints == prepared.fingerprints


def test_each_length_is_packed_into_its_own_folder_and_the_first_stays_as_it_is(
    tmp_path: Path, run: RunFolder
) -> None:
    plain = _recipe(tmp_path)
    before, _ = _prepare(plain, run)
    recipe = _recipe(tmp_path, "stages.1.seq_len=128")
    prepared, _ = _prepare(recipe, run)
    names = ["poems", "messages", "english", "english@128", "translate@128", "interpret"]
    assert prepared.to_build == names
    same = [name for name in names if "@" not in name]
    assert {name: prepared.fingerprints[name] for name in same} == {
        name: before.fingerprints[name] for name in same
    }, "a run that was begun without the key goes on over its shards"
    assert prepared.fingerprints["english"] != prepared.fingerprints["english@128"]
    with background_build(recipe, run, prepared) as builder:
        assert builder._process is not None and builder._process.wait(120) == 0, run.builder_log.read_text()
    assert {path.name for path in run.data.iterdir()} == {*names}
    again, _ = _prepare(recipe, run)
    assert again.to_build == [] and [
        plan.steps for plan in plan_stages(recipe, again.sequences_by_source)
    ] == [
        16,
        14,
        7,
    ]


def test_files_that_are_not_read_are_said(
    tmp_path: Path, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "persianmind")
    write_jsonl(tmp_path / "set" / "poems.jsonl", [{"text": text} for text in sentences(600)])
    (tmp_path / "set" / "test.jsonl").write_text('{"text": "a"}\n')
    _prepare(_recipe(tmp_path, f"sources.poems.uri={tmp_path / 'set'}"), run)
    said = next(line for line in caplog.messages if "not read" in line)
    assert said.startswith("prepare: sources.poems: not read: test.jsonl (14 bytes): the test split")


def test_raw_sources_are_streamed_once_for_held_out_text(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tmp_path)
    _prepare(recipe, run)
    assert {path.name for path in run.heldout.iterdir()} == {"en.jsonl", "index.json"}
    monkeypatch.setattr(corpus_module, "stream_records", lambda *_: pytest.fail("read a raw source again"))
    _prepare(recipe, run)
    (run.heldout / "en.jsonl").write_text("")
    with pytest.raises(DataError, match=r"en\.jsonl is missing or damaged .* delete .*heldout"):
        _prepare(recipe, run)


def test_other_ranks_wait_for_what_rank_0_prepared(tmp_path: Path, run: RunFolder) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(RunInterruptedError, match="stopped while another process prepared"):
        wait_until_prepared(run, stop)
    with pytest.raises(RunFolderError, match=r"prepared\.json is missing or damaged"):
        read_prepared(run)
    prepared, _ = _prepare(_recipe(tmp_path), run)
    wait_until_prepared(run, lambda: pytest.fail("there is nothing to wait for"))
    assert read_prepared(run) == prepared
    content = run.prepared.read_bytes()
    run.prepared.write_bytes(content.replace(b"poems", b"poemz", 1))
    with pytest.raises(RunFolderError, match="damaged"):
        read_prepared(run)


@pytest.mark.parametrize(
    ("overrides", "whole"),
    [
        (["stages.1.tokens=null", "stages.1.epochs={translate: 1}"], {"translate"}),
        (["data.shuffle_block_sequences=null"], {"poems", "messages", "english", "translate", "interpret"}),
        (["data.mixture_temperature=2"], {"poems", "messages", "english", "translate", "interpret"}),
    ],
)
def test_what_decides_something_before_step_1_is_built_at_once(
    tmp_path: Path, run: RunFolder, overrides: list[str], whole: set[str]
) -> None:
    recipe = _recipe(tmp_path, *overrides)
    prepared, _ = _prepare(recipe, run)
    assert {name for name, sequences in prepared.sequences_by_source.items() if sequences} == whole
    assert {path.parent.name for path in run.data.glob(f"*/{MANIFEST}")} == whole
    assert len(plan_stages(recipe, prepared.sequences_by_source)) == 3


def test_a_source_that_changed_under_a_run_is_refused_before_it_is_built(
    tmp_path: Path, run: RunFolder
) -> None:
    recipe = _recipe(tmp_path)
    before, _ = _prepare(recipe, run)
    build_part(recipe, "poems", run.vocab, run.data, 2, run.heldout)
    use = DataUse(fingerprints=before.fingerprints["poems"], shards=2, hash="", whole=False)
    check = partial(refuse_other_sources, 4, {"poems": use})
    assert "poems" in prepare(recipe, run, lambda word, what: None, check).to_build, "the control: unchanged"
    files = {path: path.read_bytes() for path in run.shards("poems").glob("*")}
    write_jsonl(tmp_path / "poems.jsonl", [{"text": text} for text in sentences(601)])
    with pytest.raises(
        ChangedDataError, match=r"sources\.poems: other source, since the run was trained on it"
    ):
        prepare(recipe, run, lambda word, what: None, check)
    assert {path: path.read_bytes() for path in run.shards("poems").glob("*")} == files
    assert "poems" in _prepare(recipe, run)[0].to_build, "of no step that was trained on it, it is begun anew"
    assert (run.shards("poems") / BUILDING).exists()


def test_a_damaged_tokenizer_is_named_before_anything_is_built_with_it(
    tmp_path: Path, run: RunFolder
) -> None:
    path = run.vocab / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(VocabError, match=r"tokenizer files are not those .* restore them, or delete"):
        _prepare(_recipe(tmp_path), run)
    assert not run.data.exists()


def test_stage_lengths_need_the_sequences_of_epochs_alone() -> None:
    recipe = load_recipe("tiny")
    unknown: dict[str, Any] = dict.fromkeys(recipe.sources)
    assert [plan.steps for plan in plan_stages(recipe, unknown)] == [16, 7, 7]
    with pytest.raises(RecipeError, match="'poems' has no sequences after filtering"):
        plan_stages(recipe, {**unknown, "poems": 0})
    by_epochs = load_recipe("tiny", ["stages.0.tokens=null", "stages.0.epochs={poems: 1}"])
    with pytest.raises(ValueError, match="epochs of poems, which is not built"):
        plan_stages(by_epochs, unknown)
    sequences = {**unknown, "poems": 10, "messages": 5, "english": 1}
    assert [plan.steps for plan in plan_stages(by_epochs, sequences)] == [5, 7, 7]

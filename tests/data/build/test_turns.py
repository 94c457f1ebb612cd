"""Which source is built next, and what becomes of one that fails."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from persianmind.common.errors import BuildFailedError, EmptyCorpusError, TooManyBadRecordsError
from persianmind.data.build import pipeline
from persianmind.data.build import shards as shards_module
from persianmind.data.build.job import BuildProgress
from persianmind.data.build.priority import BuildOrder, build_order, needed_whole
from persianmind.data.build.worker import build_all
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.incremental import clear_failure, read_failure
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from tests.data.build.helpers import build_recipe, build_stage
from tests.data.helpers import build, documents_of, make_job, sentences, write_jsonl
from tests.data.read.helpers import incremental, served, stage


def _ignore(step: BuildProgress) -> None:
    pass


def _build_all(
    recipe: Recipe,
    names: list[str],
    tokenizer: Path,
    out: Path,
    on_step: Callable[[BuildProgress], None] = _ignore,
) -> bool:
    jobs = [make_job(recipe, name, tokenizer, out / name) for name in names]
    return build_all(jobs, build_order(recipe), on_step)


def test_only_what_decides_something_before_step_1_must_be_whole(tmp_path: Path) -> None:
    stages = [build_stage(fa=1.0, en=1.0), build_stage(None, "two", dialogues=1.0, en=1.0)]
    assert needed_whole(build_recipe(tmp_path, stages, 1)) == {"dialogues"}
    assert needed_whole(build_recipe(tmp_path, stages[:1], 1)) == set()
    assert needed_whole(build_recipe(tmp_path, stages[:1], 1, mixture_temperature=2.0)) == {"fa", "en"}
    assert needed_whole(build_recipe(tmp_path, stages[:1], 1, shuffle_block_sequences=None)) == {"fa", "en"}
    assert needed_whole(load_recipe("persianmind-7b")) == {"translated", "instruct"}
    assert needed_whole(load_recipe("demo")) == needed_whole(load_recipe("tiny")) == set()


def test_what_a_stage_reads_at_its_own_length_is_built_for_that_stage(bpe_dir: Path, tmp_path: Path) -> None:
    stages = [
        build_stage(64 * 100, fa=1.0),
        build_stage(None, "two", fa=1.0, en=1.0) | {"seq_len": 32},
    ]
    recipe = build_recipe(tmp_path, stages, 60)
    assert needed_whole(recipe) == {"fa@32"}
    order = build_order(recipe)
    assert order.priority("fa", 0)[0] == 0 and order.priority("fa@32", 0)[0] == len(stages)
    in_tokens = recipe.model_copy(
        update={
            "stages": [recipe.stages[0], recipe.stages[1].model_copy(update={"epochs": None, "steps": 9})]
        }
    )
    assert build_order(in_tokens).priority("fa@32", 0)[0] == 1, "the second stage asks for it"
    packings = recipe.packings_of("fa")
    jobs = [
        make_job(recipe, "fa", bpe_dir, tmp_path / "out" / one.name, stage=stage)
        for one, stage in zip(packings, recipe.stages, strict=True)
    ]
    assert build_all(jobs, order, _ignore)
    whole, short = (TokenDataset(job.out) for job in jobs)
    assert (whole.manifest.seq_len, short.manifest.seq_len) == (64, 32)
    assert whole.manifest.source == short.manifest.source == "fa"
    assert whole.manifest.tokens == short.manifest.tokens and whole.manifest.tokens_lost == 0
    assert len(short) > 1.5 * len(whole)
    tokens = [sorted(token for document in documents_of(job.out) for token in document) for job in jobs]
    assert tokens[0] == tokens[1], "each has all of the text"


def test_the_source_that_training_runs_out_of_first_is_built_next(tmp_path: Path) -> None:
    """A tenth of english lasts nine times as long as nine tenths of persian; later stages come later."""
    stages = [
        build_stage(64 * 2000, fa=0.9, en=0.1),
        build_stage(64 * 100, "two", dialogues=0.5, en=0.5),
    ]
    recipe = build_recipe(tmp_path, stages, 1, shuffle_block_sequences=100)
    order = BuildOrder.model_validate_json(build_order(recipe).model_dump_json())
    sequences, turns = {"fa": 0, "en": 0, "dialogues": 0}, []
    while len(turns) < 40:
        name = min(sequences, key=lambda one: order.priority(one, sequences[one]))
        sequences[name] += 100
        turns.append(name)
    assert turns[:11] == ["fa", "en", *["fa"] * 9]
    assert turns.count("fa") >= 19 and turns.index("dialogues") == 22
    assert order.priority("fa", 99) == order.priority("fa", 0), "part of a block can serve nobody"
    assert order.priority("fa", 1900)[0] == len(stages), "enough for every stage: last of all"


def test_sources_take_turns_until_all_are_whole(
    bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_RECORDS", 20)
    recipe = build_recipe(tmp_path, [build_stage(64 * 400, fa=0.5, en=0.5)])
    turns: list[str] = []
    assert _build_all(recipe, ["fa", "en"], bpe_dir, tmp_path, lambda step: turns.append(step.source))
    changes = sum(a != b for a, b in itertools.pairwise(turns))
    assert changes > 4, turns
    assert all((tmp_path / name / MANIFEST).is_file() for name in ("fa", "en"))


# --- failures ----------------------------------------------------------------------------------------------
def test_a_failed_source_says_why_and_does_not_stop_the_others(bpe_dir: Path, tmp_path: Path) -> None:
    recipe = build_recipe(tmp_path, [build_stage(fa=0.5, bad=0.3, empty=0.2)])
    records = [{"text": text} if i % 5 else {"text": None} for i, text in enumerate(sentences(2500))]
    write_jsonl(tmp_path / "bad.jsonl", records)
    (tmp_path / "empty.jsonl").write_text("\n")
    assert not _build_all(recipe, ["bad", "empty", "fa"], bpe_dir, tmp_path / "out")
    for name, kind in (("bad", TooManyBadRecordsError), ("empty", EmptyCorpusError)):
        with pytest.raises(kind) as caught:
            build(recipe, name, bpe_dir, tmp_path / "alone" / name)
        text = " ".join(str(caught.value).split())
        failure = read_failure(tmp_path / "out" / name)
        assert failure is not None and failure == text.replace("/alone/", "/out/")
        data = stage(recipe, incremental(recipe, bpe_dir, tmp_path / "out"))
        with pytest.raises(BuildFailedError) as raised:
            data.datasets[name].known_sequences(10**6, 16)
        assert str(raised.value) == failure
    assert (tmp_path / "out" / "fa" / MANIFEST).is_file() and read_failure(tmp_path / "out" / "fa") is None


def test_what_was_built_before_a_failure_can_be_read(
    bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle; then room again: the same call goes on, and the mark of it is cleared."""
    monkeypatch.setattr(pipeline, "BATCH_RECORDS", 20)
    recipe, out = build_recipe(tmp_path, [build_stage(fa=1.0)]), tmp_path / "out"
    real, writes = shards_module.write_bytes, [0]

    def full(path: Path, content: bytes) -> None:
        writes[0] += 1
        if writes[0] > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(shards_module, "write_bytes", full)
    assert not _build_all(recipe, ["fa"], bpe_dir, out)
    failure = read_failure(out / "fa")
    assert failure is not None and "no space left on device" in failure
    data = stage(recipe, incremental(recipe, bpe_dir, out))
    early = served(data, range(16))
    with pytest.raises(BuildFailedError, match="no space left"):
        data.missing(range(64))
    monkeypatch.setattr(shards_module, "write_bytes", real)
    clear_failure(out / "fa")
    assert _build_all(recipe, ["fa"], bpe_dir, out)
    assert served(data, range(64))[:16] == early


def test_an_error_of_ours_names_the_log_and_leaves_its_traceback(
    bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = build_recipe(tmp_path, [build_stage(fa=1.0)])
    monkeypatch.setattr(shards_module, "shard_arrays", lambda *_: 1 / 0)
    assert not _build_all(recipe, ["fa"], bpe_dir, tmp_path / "out")
    assert "ZeroDivisionError" in str(read_failure(tmp_path / "out" / "fa"))
    assert "builder.log" in str(read_failure(tmp_path / "out" / "fa"))
    assert "Traceback" in capfd.readouterr().err

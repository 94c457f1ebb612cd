"""The builder process: whose turn it is, what becomes of failures, and that it dies with its parent."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from persianmind.common.errors import BuildFailedError, EmptyCorpusError, TooManyBadRecordsError
from persianmind.data.build import pipeline
from persianmind.data.build import service as service_module
from persianmind.data.build import shards as shards_module
from persianmind.data.build.job import BuildProgress
from persianmind.data.build.priority import BuildOrder, build_order, needed_whole
from persianmind.data.build.service import WORKER, BackgroundBuild
from persianmind.data.build.worker import build_all
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.incremental import clear_failure, read_failure
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from tests.data.helpers import build, make_job, make_recipe, sentences, write_jsonl
from tests.data.read.helpers import build_part, incremental, published_shards, served, stage, wait_for


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


def _recipe(folder: Path, stages: list[dict[str, Any]], documents: int = 300, **data: Any) -> Recipe:
    names = list(dict.fromkeys(name for one in stages for name in one["sources"]))
    sources = {}
    for number, name in enumerate(names):
        records = [{"text": text} for text in sentences(documents, seed=number)]
        sources[name] = {"uri": str(write_jsonl(folder / f"{name}.jsonl", records))}
    sizes = {"sequences_per_shard": 8, "shuffle_block_sequences": 16, "mixture_window": 10, **data}
    return make_recipe(sources, stages=stages, data=sizes)


def _stage(tokens: int | None = 64 * 100, name: str = "one", **sources: float) -> dict[str, Any]:
    length: dict[str, Any] = {"epochs": {next(iter(sources)): 1.0}} if tokens is None else {"tokens": tokens}
    return {"name": name, "sources": sources, **length}


# --- whose turn it is --------------------------------------------------------------------------------------
def test_only_what_decides_something_before_step_1_must_be_whole(tmp_path: Path) -> None:
    stages = [_stage(fa=1.0, en=1.0), _stage(None, "two", dialogues=1.0, en=1.0)]
    assert needed_whole(_recipe(tmp_path, stages, 1)) == {"dialogues"}
    assert needed_whole(_recipe(tmp_path, stages[:1], 1)) == set()
    assert needed_whole(_recipe(tmp_path, stages[:1], 1, mixture_temperature=2.0)) == {"fa", "en"}
    assert needed_whole(_recipe(tmp_path, stages[:1], 1, shuffle_block_sequences=None)) == {"fa", "en"}
    assert needed_whole(load_recipe("persianmind-7b")) == {"translated", "instruct"}
    assert needed_whole(load_recipe("demo")) == needed_whole(load_recipe("tiny")) == set()


def test_the_source_that_training_runs_out_of_first_is_built_next(tmp_path: Path) -> None:
    """A tenth of english lasts nine times as long as nine tenths of persian; later stages come later."""
    stages = [
        _stage(64 * 2000, fa=0.9, en=0.1),
        _stage(64 * 100, "two", dialogues=0.5, en=0.5),
    ]
    recipe = _recipe(tmp_path, stages, 1, shuffle_block_sequences=100)
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
    recipe = _recipe(tmp_path, [_stage(64 * 400, fa=0.5, en=0.5)])
    turns: list[str] = []
    assert _build_all(recipe, ["fa", "en"], bpe_dir, tmp_path, lambda step: turns.append(step.source))
    changes = sum(a != b for a, b in itertools.pairwise(turns))
    assert changes > 4, turns
    assert all((tmp_path / name / MANIFEST).is_file() for name in ("fa", "en"))


# --- failures ----------------------------------------------------------------------------------------------
def test_a_failed_source_says_why_and_does_not_stop_the_others(bpe_dir: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, [_stage(fa=0.5, bad=0.3, empty=0.2)])
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
    recipe, out = _recipe(tmp_path, [_stage(fa=1.0)]), tmp_path / "out"
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
    recipe = _recipe(tmp_path, [_stage(fa=1.0)])
    monkeypatch.setattr(shards_module, "shard_arrays", lambda *_: 1 / 0)
    assert not _build_all(recipe, ["fa"], bpe_dir, tmp_path / "out")
    assert "ZeroDivisionError" in str(read_failure(tmp_path / "out" / "fa"))
    assert "builder.log" in str(read_failure(tmp_path / "out" / "fa"))
    assert "Traceback" in capfd.readouterr().err


def _join_watcher() -> None:
    """Until the thread that watches a builder has seen it end."""
    for thread in threading.enumerate():
        if thread.name == "builder":
            thread.join(30)


# --- the process -------------------------------------------------------------------------------------------
@pytest.fixture
def large(tmp_path: Path) -> Recipe:
    """A source of some 95 shards."""
    return _recipe(tmp_path, [_stage(fa=1.0)], documents=10_000, sequences_per_shard=64)


def _start(recipe: Recipe, tokenizer: Path, folder: Path) -> BackgroundBuild:
    job = make_job(recipe, "fa", tokenizer, folder / "out" / "fa")
    return BackgroundBuild([job], build_order(recipe), folder / "builder.log")


def _assert_goes_on_to_the_same_bytes(recipe: Recipe, tokenizer: Path, folder: Path) -> None:
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("out/fa/shard-*")}
    setting = json.dumps({"plan": str(folder / "builder.json")})
    subprocess.run([sys.executable, "-m", WORKER, setting], check=True)
    build(recipe, "fa", tokenizer, folder / "whole")
    shards = sorted((folder / "whole").glob("shard-*"))
    assert len(shards) > 20
    assert [path.read_bytes() for path in shards] == [
        (folder / "out" / "fa" / path.name).read_bytes() for path in shards
    ]
    ours, theirs = ((place / MANIFEST).read_bytes() for place in (folder / "out" / "fa", folder / "whole"))
    assert ours == theirs
    unchanged = [path for path, time_ns in kept.items() if path.stat().st_mtime_ns == time_ns]
    assert len(unchanged) >= len(kept) - 1, "all but one that had no state yet"


def test_killed_9_is_reported_to_readers_and_the_next_goes_on(
    large: Recipe, bpe_dir: Path, tmp_path: Path
) -> None:
    with _start(large, bpe_dir, tmp_path) as builder:
        assert builder.pid is not None
        wait_for(lambda: published_shards(tmp_path / "out" / "fa") >= 2)
        assert psutil.Process(builder.pid).nice() >= 10
        os.kill(builder.pid, signal.SIGKILL)
        wait_for(lambda: read_failure(tmp_path / "out" / "fa") is not None)
        _join_watcher()
    failure = str(read_failure(tmp_path / "out" / "fa"))
    assert builder.failures() == {"fa": failure}
    assert "was ended by signal 9" in failure and "builder.log" in failure and "goes on" in failure
    assert not (tmp_path / "out" / "fa" / MANIFEST).exists()
    _assert_goes_on_to_the_same_bytes(large, bpe_dir, tmp_path)


def test_ended_in_order_leaves_no_failure_and_the_next_goes_on(
    large: Recipe, bpe_dir: Path, tmp_path: Path
) -> None:
    with _start(large, bpe_dir, tmp_path) as builder:
        wait_for(lambda: published_shards(tmp_path / "out" / "fa") >= 2)
    assert builder.pid is not None and not psutil.pid_exists(builder.pid)
    _join_watcher()
    assert read_failure(tmp_path / "out" / "fa") is None
    assert not list((tmp_path / "out" / "fa").glob(".*.tmp"))
    _assert_goes_on_to_the_same_bytes(large, bpe_dir, tmp_path)


def test_what_it_does_is_seen_by_its_parent_and_so_is_that_it_stands_still(
    large: Recipe, bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _start(large, bpe_dir, tmp_path) as builder:
        assert builder.pid is not None
        wait_for(lambda: builder.work_done > 0)
        before = builder.work_done
        wait_for(lambda: builder.work_done > before)
        os.kill(builder.pid, signal.SIGSTOP)
        seen = [-1]

        def unchanged() -> bool:
            seen.append(builder.work_done)
            return len(seen) > 100 and len(set(seen[-100:])) == 1

        wait_for(unchanged)
        monkeypatch.setattr(service_module, "END_WITHIN_S", 0.5)
    assert not psutil.pid_exists(builder.pid), "one that is stopped is ended too"
    assert builder.failures() == {}


def test_a_disk_without_room_for_one_byte_is_told_to_the_parent(
    large: Recipe, bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the builder nor its parent can write a file: no shard, no log, no failed.json."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(service_module, "write_failure", full)
    with _start(large, bpe_dir, tmp_path) as builder:
        assert builder.pid is not None
        resource.prlimit(builder.pid, resource.RLIMIT_FSIZE, (0, 0))
        wait_for(lambda: bool(builder.failures()))
        _join_watcher()
    failure = builder.failures()["fa"]
    assert failure.startswith(f"{tmp_path / 'out' / 'fa'}") and "file too large; make room" in failure
    assert read_failure(tmp_path / "out" / "fa") is None and "log" not in failure
    assert (tmp_path / "builder.log").read_text() == ""


def test_nothing_is_started_without_jobs(tmp_path: Path) -> None:
    order = BuildOrder(block_sequences=1, window=1, stages=[])
    with BackgroundBuild([], order, tmp_path / "builder.log") as builder:
        assert builder.pid is None
    assert not list(tmp_path.iterdir())


def test_a_process_that_cannot_even_begin_is_reported(
    bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "write_checked", lambda path, content: path.write_text("{"))
    recipe = _recipe(tmp_path, [_stage(fa=1.0)], documents=10)
    (tmp_path / "out" / "fa").mkdir(parents=True)
    with _start(recipe, bpe_dir, tmp_path):
        wait_for(lambda: read_failure(tmp_path / "out" / "fa") is not None)
    assert "ended with code 1" in str(read_failure(tmp_path / "out" / "fa"))


def test_a_source_of_very_many_files_can_be_handed_over(bpe_dir: Path, tmp_path: Path) -> None:
    """More than the 128 KiB that one argument of a process may have."""
    (tmp_path / "part.jsonl").write_text('{"text": "متن یک"}\n', encoding="utf-8")
    uris = [str(tmp_path / "part.jsonl")] * 4000
    recipe = make_recipe({"fa": {"uri": uris}}, stages=[_stage(fa=1.0)])
    with _start(recipe, bpe_dir, tmp_path) as builder:
        assert builder._process is not None and builder._process.wait(60) == 0
    assert (tmp_path / "builder.json").stat().st_size > 128 << 10
    assert (tmp_path / "out" / "fa" / MANIFEST).is_file()


_PARENT = """
import sys, time
from pathlib import Path
from persianmind.data.build.priority import BuildOrder
from persianmind.data.build.service import WORKER, BackgroundBuild
from persianmind.data.build.source import SourceJob
job = SourceJob.model_validate_json(sys.argv[1])
order = BuildOrder(block_sequences=1, window=1, stages=[])
one = BackgroundBuild([job], order, Path(sys.argv[2]))
print(one.pid, flush=True)
time.sleep(600)
"""


def test_it_dies_with_its_parent(large: Recipe, bpe_dir: Path, tmp_path: Path) -> None:
    job = make_job(large, "fa", bpe_dir, tmp_path / "out" / "fa").model_dump_json()
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, job, str(tmp_path / "builder.log")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: published_shards(tmp_path / "out" / "fa") >= 1)
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert not (tmp_path / "out" / "fa" / MANIFEST).exists(), "it did not end by being done"


def test_an_unfinished_build_is_left_by_build_part(bpe_dir: Path, tmp_path: Path) -> None:
    """The control of the helper other tests depend on: it stops where it says."""
    recipe = _recipe(tmp_path, [_stage(fa=1.0)], documents=2000)
    build_part(recipe, "fa", bpe_dir, tmp_path / "out", 1)
    assert published_shards(tmp_path / "out" / "fa") >= 1
    assert not (tmp_path / "out" / "fa" / MANIFEST).exists()

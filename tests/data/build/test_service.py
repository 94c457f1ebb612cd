"""The builder process: what its parent and readers know of it, and that it dies with its parent."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from persianmind.data.build import service as service_module
from persianmind.data.build.priority import BuildOrder, build_order
from persianmind.data.build.service import WORKER, BackgroundBuild
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.incremental import read_failure
from persianmind.recipe import Recipe
from tests.data.build.helpers import build_recipe, build_stage
from tests.data.helpers import build, make_job, make_recipe
from tests.data.read.helpers import build_part, published_shards, wait_for


def _join_watcher() -> None:
    """Until the thread that watches a builder has seen it end."""
    for thread in threading.enumerate():
        if thread.name == "builder":
            thread.join(30)


@pytest.fixture
def large(tmp_path: Path) -> Recipe:
    """A source of some 95 shards."""
    return build_recipe(tmp_path, [build_stage(fa=1.0)], documents=10_000, sequences_per_shard=64)


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
    bpe_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It tells once a second: of a source that is built sooner nothing would be seen to change.
    larger = build_recipe(tmp_path, [build_stage(fa=1.0)], documents=60_000, sequences_per_shard=64)
    with _start(larger, bpe_dir, tmp_path) as builder:
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
    recipe = build_recipe(tmp_path, [build_stage(fa=1.0)], documents=10)
    (tmp_path / "out" / "fa").mkdir(parents=True)
    with _start(recipe, bpe_dir, tmp_path):
        wait_for(lambda: read_failure(tmp_path / "out" / "fa") is not None)
    assert "ended with code 2" in str(read_failure(tmp_path / "out" / "fa"))


def test_a_source_of_very_many_files_can_be_handed_over(bpe_dir: Path, tmp_path: Path) -> None:
    """More than the 128 KiB that one argument of a process may have."""
    (tmp_path / "part.jsonl").write_text('{"text": "متن یک"}\n', encoding="utf-8")
    uris = [str(tmp_path / "part.jsonl")] * 4000
    recipe = make_recipe({"fa": {"uri": uris}}, stages=[build_stage(fa=1.0)])
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
    recipe = build_recipe(tmp_path, [build_stage(fa=1.0)], documents=2000)
    build_part(recipe, "fa", bpe_dir, tmp_path / "out", 1)
    assert published_shards(tmp_path / "out" / "fa") >= 1
    assert not (tmp_path / "out" / "fa" / MANIFEST).exists()

"""A build gives the same bytes however it was interrupted: between batches, by SIGKILL, by a full disk, by a
damaged state."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import MachineError, TooManyBadRecordsError
from persianmind.data.build import job as job_module
from persianmind.data.build import shards as shards_module
from persianmind.data.build.job import BuildProgress
from persianmind.data.build.pipeline import BATCH_RECORDS
from persianmind.data.build.state import STATE, read_state
from persianmind.data.manifest import MANIFEST
from persianmind.recipe import Recipe
from tests.data.helpers import build, files_of, make_job, make_recipe, sentences, write_jsonl


class _Stop(Exception):
    pass


def _recipe(corpus: Path, **sections: Any) -> Recipe:
    return make_recipe({"fa": {"uri": str(corpus)}}, **sections)


def test_unfinished_build_of_something_else_is_started_anew(
    bpe_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    def stop(progress: BuildProgress) -> None:
        raise _Stop

    with pytest.raises(_Stop):
        build(_recipe(corpus, data={"seq_len": 32}), "fa", bpe_dir, tmp_path / "out", stop)
    build(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    build(_recipe(corpus), "fa", bpe_dir, tmp_path / "clean")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "clean")


@pytest.mark.parametrize("near", [False, True])
def test_interrupted_anywhere_gives_the_same_bytes(
    bpe_dir: Path, corpus: Path, tmp_path: Path, near: bool
) -> None:
    """Stops after every batch in turn, goes on each time, and compares all files."""
    recipe = _recipe(corpus, quality={"near_duplicates": near, "near_duplicate_threshold": 1.0})
    build(recipe, "fa", bpe_dir, tmp_path / "whole")
    batches = 1300 // BATCH_RECORDS + 1
    for stop_after in range(1, batches + 1):
        calls = Counter[str]()

        def stop(progress: BuildProgress, calls: Counter[str] = calls, at: int = stop_after) -> None:
            calls["seen"] += 1
            if calls["seen"] == at:
                raise _Stop

        out = tmp_path / f"cut{stop_after}"
        with pytest.raises(_Stop):
            build(recipe, "fa", bpe_dir, out, stop)
        assert not (out / MANIFEST).exists()
        records_read: list[int] = []
        build(
            recipe,
            "fa",
            bpe_dir,
            out,
            lambda progress, read=records_read: read.append(progress.records_read),
        )
        assert records_read[0] > BATCH_RECORDS or stop_after == batches, "it went on and did not start anew"
        assert files_of(out) == files_of(tmp_path / "whole")


def test_crash_between_a_shard_and_its_state(
    bpe_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(corpus)
    build(recipe, "fa", bpe_dir, tmp_path / "whole")
    real = job_module.write_state
    calls = Counter[str]()

    def crash_at_second(*args: Any) -> None:
        calls["n"] += 1
        if calls["n"] == 2:
            raise _Stop
        real(*args)

    monkeypatch.setattr(job_module, "write_state", crash_at_second)
    with pytest.raises(_Stop):
        build(recipe, "fa", bpe_dir, tmp_path / "cut")
    monkeypatch.setattr(job_module, "write_state", real)
    build(recipe, "fa", bpe_dir, tmp_path / "cut")
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


_KILLED = """
import os, signal, sys
from pathlib import Path
from persianmind.data.build.builder import build_source
from persianmind.data.build.source import SourceJob
job = SourceJob.model_validate_json(Path(sys.argv[1]).read_text())
calls = 0
real = os.fsync
def fsync(descriptor):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
build_source(job)
"""


@pytest.mark.parametrize("at_fsync", [2, 17, 30])
def test_killed_in_the_middle_of_writing(bpe_dir: Path, corpus: Path, tmp_path: Path, at_fsync: int) -> None:
    """SIGKILL inside a write: no half file under a final name, and the same bytes in the end."""
    recipe = _recipe(corpus)
    job = make_job(recipe, "fa", bpe_dir, tmp_path / "cut")
    (tmp_path / "job.json").write_text(job.model_dump_json())
    arguments = [str(tmp_path / "job.json"), str(at_fsync)]
    result = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    build(recipe, "fa", bpe_dir, tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    for name, content in files_of(tmp_path / "cut").items():
        if name.startswith("shard-"):
            assert content == whole[name]
    build(recipe, "fa", bpe_dir, tmp_path / "cut")
    finished = {name: c for name, c in files_of(tmp_path / "cut").items() if not name.endswith(".tmp")}
    assert finished == whole


def test_full_disk_is_named_and_the_build_goes_on_after_it(
    bpe_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shards_module.write_bytes
    writes: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        if len(writes) == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writes.append(path)
        real(path, content)

    monkeypatch.setattr(shards_module, "write_bytes", full)
    with pytest.raises(MachineError, match="no space left on device"):
        build(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    monkeypatch.setattr(shards_module, "write_bytes", real)
    build(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    build(_recipe(corpus), "fa", bpe_dir, tmp_path / "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_too_many_bad_records_stop_the_build_and_a_higher_budget_goes_on(
    bpe_dir: Path, tmp_path: Path
) -> None:
    records = [{"text": text} if i % 10 else {"text": None} for i, text in enumerate(sentences(2500))]
    path = write_jsonl(tmp_path / "c.jsonl", records)
    with pytest.raises(
        TooManyBadRecordsError, match=r"bad \(10\.\d%; null_text \d+\).*max_bad_record_ratio=0\.05"
    ):
        build(_recipe(path), "fa", bpe_dir, tmp_path / "out")
    read: list[int] = []
    manifest = build(
        _recipe(path, data={"max_bad_record_ratio": 0.2}),
        "fa",
        bpe_dir,
        tmp_path / "out",
        lambda progress: read.append(progress.records_read),
    )
    assert manifest.rejected == {"null_text": 250}
    assert (tmp_path / "out" / "quarantine.jsonl").read_text().count("\n") == 250


def test_any_flipped_bit_of_the_state_is_noticed_and_the_build_started_anew(
    bpe_dir: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the counts as well as in the tokens that are in no shard yet, which nothing else would notice."""

    def stop(progress: BuildProgress) -> None:
        raise _Stop

    recipe, out = _recipe(corpus), tmp_path / "cut"
    with pytest.raises(_Stop):
        build(recipe, "fa", bpe_dir, out, stop)
    good = (out / STATE).read_bytes()
    assert read_state(out) is not None and not caplog.messages
    chance = random.Random(7)
    header = int.from_bytes(good[:8], "little")
    ends = [8 + header] * 40 + [len(good)] * 40
    for end in ends:
        at = chance.randrange(8, end)
        damaged = bytearray(good)
        damaged[at] ^= 1 << chance.randrange(8)
        (out / STATE).write_bytes(damaged)
        assert read_state(out) is None, at
    assert f"{out / STATE} is damaged; it and the unfinished shards of {out}" in caplog.messages[0]
    read: list[int] = []
    build(recipe, "fa", bpe_dir, out, lambda progress: read.append(progress.records_read))
    assert read[0] <= BATCH_RECORDS, "started anew"
    build(recipe, "fa", bpe_dir, tmp_path / "whole")
    assert files_of(out) == files_of(tmp_path / "whole")

"""Shards that change while they are read: found, named, never used, looked for within a part of the time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from persianmind.common.errors import DataError
from persianmind.data.read import recheck as recheck_module
from persianmind.data.read import shard as shard_module
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.recheck import ShardRecheck
from persianmind.data.read.shard import ShardReader
from tests.data.helpers import build, make_recipe, sentences, write_jsonl


@pytest.fixture
def built(bpe_dir: Path, tmp_path: Path) -> Path:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in sentences(300)])
    build(make_recipe({"fa": {"uri": str(path)}}), "fa", bpe_dir, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def dataset(built: Path) -> TokenDataset:
    """Its first shard is open."""
    one = TokenDataset(built)
    one.sequence(0)
    return one


def first_shard(dataset: TokenDataset) -> Path:
    return dataset.folder / dataset.shards[0].file


def overwrite_end(path: Path) -> None:
    """In place, as a copy tool or a bad disk does: the same file, the same size, other bytes at its end."""
    with path.open("r+b") as handle:
        handle.seek(-2000, os.SEEK_END)
        handle.write(b"\xff" * 2000)


def every_sequence(dataset: TokenDataset) -> list[bytes]:
    return [dataset.sequence(i).input_ids.tobytes() for i in range(dataset.shards[0].sequences)]


def test_overwritten_sequences_are_never_given(
    dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = every_sequence(dataset)
    overwrite_end(first_shard(dataset))
    assert dataset.sequence(0).input_ids.tobytes() == good[0], "what did not change can be read"
    with pytest.raises(DataError, match=r"shard-000000\.safetensors is damaged .* delete .* build again"):
        every_sequence(dataset)
    # The control: without a hash of each sequence it is trained on.
    monkeypatch.setattr(ShardReader, "read", _read_unchecked)
    assert every_sequence(dataset) != good


def _read_unchecked(self: ShardReader, sequence: int) -> tuple[np.ndarray, None]:  # type: ignore[type-arg]
    rows = self._parts[0]
    raw = self._read_at(rows.start + sequence * rows.row_bytes, rows.row_bytes)
    return np.frombuffer(raw, dtype=rows.dtype), None


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(dataset: TokenDataset, ratio: float) -> None:
    path = first_shard(dataset)
    os.truncate(path, int(path.stat().st_size * ratio))
    with pytest.raises(DataError, match="is damaged"):
        every_sequence(dataset)
    with pytest.raises(DataError, match="is damaged"):
        ShardRecheck([dataset]).look()


def test_control_under_a_memory_map_the_process_dies(dataset: TokenDataset) -> None:
    code = (
        "import os, sys; from safetensors import safe_open\n"
        "rows = safe_open(sys.argv[1], framework='numpy').get_slice('tokens')\n"
        "os.truncate(sys.argv[1], 500); rows[40:48]"
    )
    done = subprocess.run([sys.executable, "-c", code, str(first_shard(dataset))], check=False)
    assert done.returncode == -signal.SIGBUS


def _replace(path: Path, change: Callable[[Path], None]) -> None:
    other = path.with_suffix(".new")
    shutil.copyfile(path, other)
    change(other)
    other.replace(path)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (overwrite_end, "is damaged"),
        (lambda path: _replace(path, overwrite_end), "is damaged"),
        (lambda path: os.truncate(path, 100), "is damaged"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_change_is_found_although_nothing_of_it_is_read(
    dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch, what: Callable[[Path], None], named: str
) -> None:
    recheck = ShardRecheck([dataset])
    recheck.look()
    what(first_shard(dataset))
    with pytest.raises(DataError, match=named):
        recheck.look()
    # The control: without a look at the files' times nothing would be seen before its turn comes.
    monkeypatch.setattr(ShardReader, "was_touched", False)
    monkeypatch.setattr(recheck_module, "MAX_TIME_RATIO", 0.0)
    recheck.look()


@pytest.mark.parametrize(
    "what", [Path.touch, lambda path: path.chmod(0o600), lambda path: _replace(path, lambda _: None)]
)
def test_the_same_bytes_are_no_change(dataset: TokenDataset, what: Callable[[Path], None]) -> None:
    recheck = ShardRecheck([dataset])
    (reader,) = dataset.readers
    what(first_shard(dataset))
    assert reader.was_touched
    recheck.look()
    assert not reader.was_touched, "hashed once, not at every look"
    every_sequence(dataset)


def test_damage_that_no_time_shows_comes_round(
    dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck_module, "MAX_TIME_RATIO", 1e9)
    overwrite_end(first_shard(dataset))
    for reader in dataset.readers:
        reader._identity = reader._stat()
    with pytest.raises(DataError, match="is damaged"):
        ShardRecheck([dataset]).look()


def test_looking_stays_within_its_part_of_the_time(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a thousand looks a second apart, of files that take 5 ms each; all of them come round."""
    dataset = TokenDataset(built)
    for index in range(0, len(dataset), 16):
        dataset.sequence(index)
    for reader in dataset.readers:
        reader.verified_s = reader.hashing_s = 0.0
    now_s: list[float] = [1000.0]
    hashed: list[str] = []
    monkeypatch.setattr(recheck_module.time, "monotonic", lambda: now_s[0])

    def hash_slowly(self: ShardReader) -> None:
        hashed.append(self.path.name)
        self.verified_s, self.hashing_s = now_s[0], 0.005

    monkeypatch.setattr(ShardReader, "verify", hash_slowly)
    recheck = ShardRecheck([dataset])
    for _ in range(1000):
        now_s[0] += 1.0
        recheck.look()
    assert len(dataset.readers) > 3
    assert 0.9 * 10 < recheck.spent_s <= 10.0, "of 1,000 s"
    assert min(map(hashed.count, set(hashed))) >= len(hashed) // len(dataset.readers)
    assert len(set(hashed)) == len(dataset.readers)


def test_few_files_stay_open_and_all_are_still_checked(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persianmind.data.read.dataset.MAX_OPEN_SHARDS", 1)
    dataset = TokenDataset(built)
    dataset.sequence(0)
    dataset.sequence(len(dataset) - 1)
    overwrite_end(first_shard(dataset))
    with pytest.raises(DataError, match="is damaged"):
        every_sequence(dataset)


def test_control_of_the_first_look(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overwrite_end(built / "shard-000000.safetensors")
    with pytest.raises(DataError, match="is damaged"):
        TokenDataset(built).sequence(0)
    monkeypatch.setattr(shard_module, "_is_as_written", lambda raw, entry: True)
    TokenDataset(built).sequence(0)

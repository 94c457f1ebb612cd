"""Sequences as the model gets them, and no damaged byte ever among them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import DataError
from persianmind.data.manifest import MANIFEST, shard_path
from persianmind.data.read import dataset as dataset_module
from persianmind.data.read import shard as shard_module
from persianmind.data.read.batches import StageData
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.order import Mixture, rank_samples
from persianmind.data.read.sequence import IGNORED, build_sequence
from tests.data.helpers import build, make_recipe, sentences, write_jsonl


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    padding=st.integers(0, 5),
    masked=st.booleans(),
)
def test_sequence_against_the_definition(lengths: list[int], padding: int, masked: bool) -> None:
    """Positions and labels, written out token by token."""
    total = sum(lengths)
    tokens = np.arange(100, 100 + total + padding, dtype=np.int64)
    targets = np.random.default_rng(total).random(total + padding) < 0.5 if masked else None
    document = [d for d, length in enumerate(lengths) for _ in range(length)] + [-1] * padding
    within = [i for length in [*lengths, padding] for i in range(length)]
    sequence = build_sequence(tokens, np.array(lengths, dtype=np.int32), targets)
    for t in range(len(tokens)):
        assert sequence.position_ids[t] == within[t]
        last = t + 1 == len(tokens) or document[t] == -1 or document[t + 1] != document[t]
        wanted = not last and (targets is None or bool(targets[t + 1]))
        assert sequence.labels[t] == (tokens[t + 1] if wanted else IGNORED)


@pytest.fixture
def built(bpe_dir: Path, tmp_path: Path) -> Path:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in sentences(300)])
    build(make_recipe({"fa": {"uri": str(path)}}), "fa", bpe_dir, tmp_path / "out")
    return tmp_path / "out"


def test_cheap_counts_agree_with_the_sequences(built: Path) -> None:
    dataset = TokenDataset(built)
    for index in range(len(dataset)):
        sequence = dataset.sequence(index)
        assert dataset.target_count(index) == int((sequence.labels != IGNORED).sum())
        assert dataset.useful_tokens(index) == int((sequence.position_ids[1:] > 0).sum()) + 1 + sum(
            sequence.position_ids[1:] == 0
        ) - (len(sequence.input_ids) - dataset.useful_tokens(index))
        assert sequence.input_ids.dtype == sequence.position_ids.dtype == sequence.labels.dtype == np.int64
    manifest = dataset.manifest
    assert sum(map(dataset.useful_tokens, range(len(dataset)))) == manifest.tokens
    assert sum(map(dataset.target_count, range(len(dataset)))) == manifest.targets
    with pytest.raises(IndexError):
        dataset.sequence(len(dataset))


def _read_everything(folder: Path) -> None:
    dataset = TokenDataset(folder)
    for index in range(len(dataset)):
        dataset.sequence(index)


def test_any_flipped_bit_of_a_shard_is_found(built: Path) -> None:
    chance = random.Random(5)
    shard = sorted(built.glob("shard-*"))[1]
    good = shard.read_bytes()
    for _ in range(60):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{shard.name} is damaged"):
            _read_everything(built)
    shard.write_bytes(good)
    _read_everything(built)


def test_without_the_check_flipped_bits_go_unnoticed(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: reading alone does not notice."""
    monkeypatch.setattr(shard_module, "_is_as_written", lambda raw, entry: True)
    shard = sorted(built.glob("shard-*"))[1]
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    _read_everything(built)


def test_any_flipped_bit_of_the_manifest_is_found(built: Path) -> None:
    chance = random.Random(6)
    path = built / MANIFEST
    good = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            TokenDataset(built)


def test_missing_and_truncated_shards_are_named(built: Path) -> None:
    shard = sorted(built.glob("shard-*"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(DataError, match="is damaged"):
        TokenDataset(built).verify()
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        TokenDataset(built).verify()


@pytest.mark.parametrize("path", ["../outside.safetensors", "/etc/passwd", "a/../../b", ""])
def test_paths_of_a_manifest_stay_inside(built: Path, path: str) -> None:
    """A manifest with a right checksum, made by hand."""
    tree = read_checked(built / MANIFEST)
    tree["shards"][0]["file"] = path
    write_checked(built / MANIFEST, tree)
    with pytest.raises(DataError, match="not inside the folder"):
        TokenDataset(built).sequence(0)


def test_links_in_a_shard_folder_are_refused(built: Path, tmp_path: Path) -> None:
    entry = TokenDataset(built).manifest.shards[0]
    real = shard_path(built, entry)
    real.rename(tmp_path / "elsewhere.safetensors")
    real.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(DataError, match="symbolic link"):
        TokenDataset(built).sequence(0)


def test_folder_without_shards_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="build them first"):
        TokenDataset(tmp_path)


def test_many_shards_keep_few_open(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "MAX_OPEN_SHARDS", 2)
    dataset = TokenDataset(built)
    sequences = [dataset.sequence(i).input_ids for i in range(len(dataset))]
    assert len(dataset.manifest.shards) > 3 and len(dataset._open) == 2
    assert np.array_equal(sequences[0], dataset.sequence(0).input_ids)


@pytest.fixture
def stage(built: Path) -> StageData:
    dataset = TokenDataset(built)
    return _stage(built, len(dataset))


def _stage(folder: Path, sequences: int) -> StageData:
    mixture = Mixture({"fa": sequences, "also": sequences}, {"fa": 0.75, "also": 0.25}, 12, 5)
    return StageData(mixture, {"fa": TokenDataset(folder), "also": TokenDataset(folder)})


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in ("input_ids", "position_ids", "labels"))


def test_resuming_at_every_position_gives_the_same_next_100_batches(built: Path, stage: StageData) -> None:
    """State is the number of the next sample; a new object that starts from it serves the same."""
    sequences, batches = 4, 130
    straight = [stage.batch(range(sequences * i, sequences * (i + 1))) for i in range(batches)]
    for cut in range(30):
        resumed = _stage(built, len(stage.datasets["fa"]))
        for i in range(cut, cut + 100):
            assert _same(resumed.batch(range(sequences * i, sequences * (i + 1))), straight[i]), (cut, i)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_ranks_together_serve_the_global_batch(stage: StageData, world: int) -> None:
    global_batch_size = 24
    for step in range(5):
        first = step * global_batch_size
        whole = stage.batch(range(first, first + global_batch_size))
        for rank in range(world):
            part = stage.batch(rank_samples(first, global_batch_size, rank, world))
            assert _same(part, {name: array[rank::world] for name, array in whole.items()})
        assert stage.target_count(range(first, first + global_batch_size)) == int(
            (whole["labels"] >= 0).sum()
        )
        assert stage.useful_tokens(range(first, first + global_batch_size)) <= whole["labels"].size


def test_an_epoch_serves_every_document_once(built: Path) -> None:
    dataset = TokenDataset(built)
    stage = StageData(Mixture({"fa": len(dataset)}, {"fa": 1.0}, 10, 2), {"fa": dataset})
    for epoch in range(3):
        served = [stage.sequence(epoch * len(dataset) + i).input_ids.tobytes() for i in range(len(dataset))]
        assert sorted(served) == sorted(dataset.sequence(i).input_ids.tobytes() for i in range(len(dataset)))

"""Training on a folder that is still being built serves what it would serve from the finished one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.common.errors import DataError, RunInterruptedError
from persianmind.data.build import pipeline
from persianmind.data.manifest import BUILDING, MANIFEST, read_building, write_building
from persianmind.data.read import incremental as incremental_module
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.incremental import IncrementalDataset
from persianmind.recipe import Recipe
from tests.data.helpers import build, make_bpe, make_recipe, sentences, write_jsonl
from tests.data.read.helpers import (
    SlowBuilder,
    build_part,
    incremental,
    prints,
    published_shards,
    served,
    stage,
    wait_for,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches and quick looks, so that a small source has many states to be met in."""
    monkeypatch.setattr(pipeline, "BATCH_RECORDS", 40)
    monkeypatch.setattr(incremental_module, "POLL_S", 0.005)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of 400 and 150 documents."""
    folder = tmp_path_factory.mktemp("texts")
    write_jsonl(folder / "fa.jsonl", [{"text": text} for text in sentences(400, seed=1)])
    write_jsonl(folder / "en.jsonl", [{"text": text} for text in sentences(150, seed=2)])
    return folder


@pytest.fixture(scope="module")
def builder() -> Iterator[SlowBuilder]:
    one = SlowBuilder()
    yield one
    one.close()


def _recipe(
    texts: Path, block_sequences: int | None = 16, sequences_per_shard: int = 8, **data: Any
) -> Recipe:
    sources = {name: {"uri": str(texts / f"{name}.jsonl")} for name in ("fa", "en")}
    sizes = {
        "sequences_per_shard": sequences_per_shard,
        "shuffle_block_sequences": block_sequences,
        "mixture_window": 10,
    }
    stages = [{"name": "one", "sources": {"fa": 0.7, "en": 0.3}, "tokens": 64 * 400}]
    return make_recipe(sources, data={**sizes, **data}, stages=stages)


def _whole(recipe: Recipe, tokenizer: Path, out: Path) -> dict[str, TokenDataset]:
    for name in recipe.sources:
        build(recipe, name, tokenizer, out / name)
    return {name: TokenDataset(out / name) for name in recipe.sources}


def _shards(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*")) if path.is_file()
    }


@given(
    block_sequences=st.integers(1, 60),
    sequences_per_shard=st.integers(1, 20),
    batch_records=st.integers(10, 80),
    pause_ms=st.integers(0, 6),
    seed=st.integers(0, 2**40),
)
@settings(deadline=None, max_examples=12)
def test_the_same_samples_are_served_while_and_after_building(
    block_sequences: int,
    sequences_per_shard: int,
    batch_records: int,
    pause_ms: int,
    seed: int,
    texts: Path,
    bpe_dir: Path,
    builder: SlowBuilder,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Over several epochs of each source, against a second process that is overtaken again and again."""
    folder = tmp_path_factory.mktemp("incremental")
    recipe = _recipe(texts, block_sequences, sequences_per_shard)
    builder.start(recipe, bpe_dir, folder / "out", batch_records=batch_records, pause_s=pause_ms / 1000)
    early = served(stage(recipe, incremental(recipe, bpe_dir, folder / "out"), seed), range(500))
    assert builder.finish()
    finished = _whole(recipe, bpe_dir, folder / "whole")
    assert early == served(stage(recipe, finished, seed), range(500))
    for name in recipe.sources:
        assert _shards(folder / "out" / name) == _shards(folder / "whole" / name)


def test_sequences_are_served_before_the_build_is_done_and_waited_for_after(
    texts: Path, bpe_dir: Path, tmp_path: Path
) -> None:
    recipe, out = _recipe(texts), tmp_path / "out"
    for name in recipe.sources:
        build_part(recipe, name, bpe_dir, out, 2)
    asked: list[int] = []

    def give_up() -> None:
        asked.append(len(asked))
        if len(asked) == 3:
            raise RunInterruptedError("enough")

    data = stage(recipe, incremental(recipe, bpe_dir, out, while_waiting=give_up))
    early = served(data, range(20))
    assert not asked and not list(out.glob(f"*/{MANIFEST}"))
    assert data.missing(range(20)) is None
    assert data.missing(range(100)) == "fa"
    assert data.characters(range(5)) is None
    with pytest.raises(RunInterruptedError, match="enough"):
        served(data, range(20, 100))
    assert len(asked) == 3
    finished = stage(recipe, _whole(recipe, bpe_dir, out))
    assert early == served(finished, range(20))
    assert served(data, range(100)) == served(finished, range(100)), "the same object goes on"
    assert data.characters(range(5)) == finished.characters(range(5)) is not None


def test_an_order_over_all_sequences_waits_for_the_end(texts: Path, bpe_dir: Path, tmp_path: Path) -> None:
    """The control: without blocks no sequence can be located before the number of sequences is known."""
    for block_sequences, ready in ((None, False), (16, True)):
        recipe = _recipe(texts, block_sequences)
        build_part(recipe, "fa", bpe_dir, tmp_path, 2)
        dataset = IncrementalDataset(tmp_path / "fa", prints(recipe, "fa", bpe_dir))
        assert dataset.is_built(0, block_sequences) is ready


def test_killed_9_in_mid_build_then_the_same_bytes_and_samples(
    texts: Path, bpe_dir: Path, tmp_path: Path
) -> None:
    recipe, out = _recipe(texts), tmp_path / "out"
    slow = SlowBuilder()
    slow.start(recipe, bpe_dir, out, batch_records=20, pause_s=0.05)
    data = stage(recipe, incremental(recipe, bpe_dir, out))
    early = served(data, range(20))
    wait_for(lambda: published_shards(out / "fa") >= 3)
    slow.kill()
    slow.close()
    assert not (out / "fa" / MANIFEST).exists()
    kept = {path: path.read_bytes() for path in out.glob("*/shard-*")}
    again = SlowBuilder()
    again.start(recipe, bpe_dir, out, batch_records=30, pause_s=0.0)
    assert again.finish()
    again.close()
    finished = _whole(recipe, bpe_dir, tmp_path / "whole")
    assert _shards(out) == _shards(tmp_path / "whole")
    assert all(path.read_bytes() == content for path, content in kept.items())
    expected = served(stage(recipe, finished), range(500))
    assert early == expected[:20]
    assert served(data, range(500)) == expected, "the reader that began before goes on"


def test_what_another_build_published_is_not_used(texts: Path, bpe_dir: Path, tmp_path: Path) -> None:
    recipe, out = _recipe(texts), tmp_path / "out"
    build_part(recipe, "fa", bpe_dir, out, 3)
    other = make_bpe(tmp_path / "other", vocab_size=500, seed=9)
    foreign = IncrementalDataset(out / "fa", prints(recipe, "fa", other))
    assert not foreign.is_built(0, 16) and len(foreign) == 0
    own = IncrementalDataset(out / "fa", prints(recipe, "fa", bpe_dir))
    assert own.is_built(0, 16) and len(own) >= 24
    build_part(recipe, "fa", other, out, 1)  # starts anew: the old list must go before the old shards
    assert foreign.is_built(0, 8) and len(foreign) >= 8
    with pytest.raises(DataError, match=r"is damaged|was built anew"):
        served(stage(recipe, {"fa": own, "en": own}), range(10))


def test_a_folder_built_anew_under_a_reader_is_noticed(texts: Path, bpe_dir: Path, tmp_path: Path) -> None:
    recipe, out = _recipe(texts), tmp_path / "out"
    build_part(recipe, "fa", bpe_dir, out, 2)
    dataset = IncrementalDataset(out / "fa", prints(recipe, "fa", bpe_dir))
    published = read_building(out / "fa")
    assert published is not None
    longer = published.model_copy(update={"shards": [*published.shards, published.shards[0]]})
    write_building(out / "fa", longer)
    dataset.refresh()  # longer is as it should be
    assert len(dataset) == 8 * len(longer.shards)
    write_building(out / "fa", published.model_copy(update={"shards": published.shards[::-1]}))
    with pytest.raises(DataError, match="was built anew while it was read"):
        dataset.refresh()


def test_any_flipped_bit_of_what_is_published_is_found(texts: Path, bpe_dir: Path, tmp_path: Path) -> None:
    recipe, out = _recipe(texts), tmp_path / "out"
    build_part(recipe, "fa", bpe_dir, out, 2)
    wanted = prints(recipe, "fa", bpe_dir)
    for path in (out / "fa" / BUILDING, out / "fa" / "shard-000001.safetensors"):
        good = path.read_bytes()
        for damaged in _flipped(good, 30):
            path.write_bytes(damaged)
            with pytest.raises(DataError):
                IncrementalDataset(out / "fa", wanted).sequence(15)
        path.write_bytes(good)
        IncrementalDataset(out / "fa", wanted).sequence(15)


def _flipped(good: bytes, count: int) -> Iterator[bytes]:
    chance = random.Random(8)
    for _ in range(count):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        yield bytes(damaged)

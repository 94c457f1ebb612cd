"""A build keeps every token, is the same bytes however it was interrupted, and refuses what it is not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import make_bpe, make_recipe, real_data, sentences, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.common.errors import (
    DataError,
    EmptyCorpusError,
    MachineError,
    SourceError,
    TooManyBadRecordsError,
)
from persianmind.data.build.job import BuildProgress
from persianmind.data.build.pipeline import BATCH_RECORDS
from persianmind.data.build.source import build_source
from persianmind.data.build import job as running_module
from persianmind.data.build import shards as shards_module
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.dataset import TokenDataset
from persianmind.language.persian import normalise
from persianmind.recipe import Normalise, Recipe
from persianmind.text.documents import held_out_texts, training_texts
from persianmind.tokenizer import FolderTokenizer


def documents_of(folder: Path) -> list[tuple[int, ...]]:
    """Every document of a folder as served, sequence by sequence."""
    dataset = TokenDataset(folder)
    found = []
    for index in range(len(dataset)):
        ids, start = dataset.sequence(index).input_ids, 0
        for length in dataset.doc_lengths(index).tolist():
            found.append(tuple(ids[start : start + length].tolist()))
            start += length
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a build (but its lock)."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two files of 1,300 sequences with some bad ones: several batches, many shards."""
    texts = sentences(1300, seed=3)
    sequences: list[dict[str, Any]] = [{"id": f"doc/{i}", "text": text} for i, text in enumerate(texts)]
    sequences[7] = {"id": "doc/7"}
    sequences[800] = {"text": 5}
    sequences[900]["text"] = texts[100]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", sequences[:700])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", sequences[700:])
    return tmp_path / "corpus"


def _recipe(corpus: Path, **sections: Any) -> Recipe:
    return make_recipe({"fa": {"uri": str(corpus)}}, **sections)


@given(
    texts=st.lists(
        st.text("کتاب خانه\u200cabc \n", min_size=1, max_size=300), min_size=1, max_size=40, unique=True
    )
)
@settings(deadline=None, max_examples=25)
def test_every_token_of_every_document_is_in_exactly_one_place(
    texts: list[str], bpe_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("build")
    sequences = [{"text": f"متن {i} {text}"} for i, text in enumerate(texts)]
    recipe = _recipe(
        write_jsonl(folder / "c.jsonl", sequences), data={"seq_len": 16, "sequences_per_shard": 3}
    )
    manifest = build_source(recipe, "fa", bpe_dir, folder / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    clean = [normalise(sequence["text"], Normalise()) for sequence in sequences]
    expected = Counter(
        tuple(whole[i : i + 16].tolist())
        for whole in tokenizer.encode_documents(clean)
        for i in range(0, len(whole), 16)
    )
    assert Counter(documents_of(folder / "out")) == expected
    assert manifest.documents == len(texts)
    assert manifest.tokens_lost == 0
    assert manifest.tokens == sum(len(d) * n for d, n in expected.items())


def test_served_documents_decode_to_the_normalised_text(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    build_source(_recipe(corpus, data={"seq_len": 2048}), "fa", bpe_dir, tmp_path / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    served = {tokenizer.decode(ids, skip_special=True) for ids in documents_of(tmp_path / "out")}
    assert normalise(sentences(1300, seed=3)[5], Normalise()) in served
    assert len(served) == 1297  # 1,300 less two bad sequences and one duplicate


def test_counts_and_quarantine(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    manifest = build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    assert manifest.records_read == 1300
    assert manifest.rejected == {"missing_field": 1, "wrong_type": 1}
    assert {reason: one.count for reason, one in manifest.taken.items()} == {"exact_duplicate": 1}
    assert manifest.taken["exact_duplicate"].samples[0]["place"] == "b.jsonl:201"
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 2
    assert '"file": "a.jsonl", "line": 8, "reason": "missing_field"' in quarantine[0]


def test_second_build_returns_at_once_and_touches_nothing(
    bpe_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    before = files_of(tmp_path / "out")
    monkeypatch.setattr(running_module, "prepared_batches", lambda *_: pytest.fail("read the source again"))
    assert build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "out") == first
    assert files_of(tmp_path / "out") == before


class _Stop(Exception):
    pass


@pytest.mark.parametrize("near", [False, True])
def test_interrupted_anywhere_gives_the_same_bytes(
    bpe_dir: Path, corpus: Path, tmp_path: Path, near: bool
) -> None:
    """Stops after every batch in turn, goes on each time, and compares all files."""
    recipe = _recipe(corpus, quality={"near_duplicates": near, "near_duplicate_threshold": 1.0})
    build_source(recipe, "fa", bpe_dir, tmp_path / "whole")
    batches = 1300 // BATCH_RECORDS + 1
    for stop_after in range(1, batches + 1):
        calls = Counter[str]()

        def stop(progress: BuildProgress, calls: Counter[str] = calls, at: int = stop_after) -> None:
            calls["seen"] += 1
            if calls["seen"] == at:
                raise _Stop

        out = tmp_path / f"cut{stop_after}"
        with pytest.raises(_Stop):
            build_source(recipe, "fa", bpe_dir, out, stop)
        assert not (out / MANIFEST).exists()
        records_read: list[int] = []
        build_source(
            recipe,
            "fa",
            bpe_dir,
            out,
            lambda progress, sequences=records_read: sequences.append(progress.records_read),
        )
        assert records_read[0] > BATCH_RECORDS or stop_after == batches, "it went on and did not start anew"
        assert files_of(out) == files_of(tmp_path / "whole")


def test_crash_between_a_shard_and_its_state(
    bpe_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(corpus)
    build_source(recipe, "fa", bpe_dir, tmp_path / "whole")
    real = running_module.write_state
    calls = Counter[str]()

    def crash_at_second(*args: Any) -> None:
        calls["n"] += 1
        if calls["n"] == 2:
            raise _Stop
        real(*args)

    monkeypatch.setattr(running_module, "write_state", crash_at_second)
    with pytest.raises(_Stop):
        build_source(recipe, "fa", bpe_dir, tmp_path / "cut")
    monkeypatch.setattr(running_module, "write_state", real)
    build_source(recipe, "fa", bpe_dir, tmp_path / "cut")
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


_KILLED = """
import os, signal, sys
from pathlib import Path
from persianmind.recipe import Recipe
from persianmind.data import state
from persianmind.data.build.source import build_source
from persianmind import files
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
calls = 0
real = os.fsync
def fsync(descriptor):
    global calls
    calls += 1
    if calls == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
build_source(recipe, "fa", Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("at_fsync", [2, 17, 30])
def test_killed_in_the_middle_of_writing(bpe_dir: Path, corpus: Path, tmp_path: Path, at_fsync: int) -> None:
    """SIGKILL inside a write: no half file under a final name, and the same bytes in the end."""
    recipe = _recipe(corpus)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    arguments = [str(tmp_path / "recipe.json"), str(bpe_dir), str(tmp_path / "cut"), str(at_fsync)]
    result = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    build_source(recipe, "fa", bpe_dir, tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    for name, content in files_of(tmp_path / "cut").items():
        if name.startswith("shard-"):
            assert content == whole[name]
    build_source(recipe, "fa", bpe_dir, tmp_path / "cut")
    finished = {name: c for name, c in files_of(tmp_path / "cut").items() if not name.endswith(".tmp")}
    assert finished == whole


@pytest.mark.slow
def test_workers_change_no_byte(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "one")
    build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "two", workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_shards_of_something_else_are_refused(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_source(_recipe(corpus), "fa", bpe_dir, out)
    before = files_of(out)
    other = make_bpe(tmp_path / "other", vocab_size=500, seed=9)
    with pytest.raises(DataError, match="another tokenizer"):
        build_source(_recipe(corpus), "fa", other, out)
    with pytest.raises(DataError, match="another options"):
        build_source(_recipe(corpus, data={"seq_len": 32}), "fa", bpe_dir, out)
    write_jsonl(corpus / "c.jsonl", [{"text": "متن تازه"}])
    with pytest.raises(DataError, match="another source"):
        build_source(_recipe(corpus), "fa", bpe_dir, out)
    assert files_of(out) == before


def test_unfinished_build_of_something_else_is_started_anew(
    bpe_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    def stop(progress: BuildProgress) -> None:
        raise _Stop

    with pytest.raises(_Stop):
        build_source(_recipe(corpus, data={"seq_len": 32}), "fa", bpe_dir, tmp_path / "out", stop)
    build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "clean")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "clean")


def test_too_many_bad_rows_stop_the_build_and_a_higher_budget_goes_on(bpe_dir: Path, tmp_path: Path) -> None:
    sequences = [{"text": text} if i % 10 else {"text": None} for i, text in enumerate(sentences(2500))]
    path = write_jsonl(tmp_path / "c.jsonl", sequences)
    with pytest.raises(
        TooManyBadRecordsError, match=r"bad \(10\.\d%; null_text \d+\).*max_bad_record_ratio=0\.05"
    ):
        build_source(_recipe(path), "fa", bpe_dir, tmp_path / "out")
    read: list[int] = []
    manifest = build_source(
        _recipe(path, data={"max_bad_record_ratio": 0.2}),
        "fa",
        bpe_dir,
        tmp_path / "out",
        lambda progress: read.append(progress.records_read),
    )
    assert manifest.rejected == {"null_text": 250}
    assert (tmp_path / "out" / "quarantine.jsonl").read_text().count("\n") == 250


def test_nothing_usable_is_a_named_error(bpe_dir: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": "متن"}])
    with pytest.raises(EmptyCorpusError, match="too_short"):
        build_source(_recipe(path, quality={"min_characters": 10}), "fa", bpe_dir, tmp_path / "out")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(EmptyCorpusError, match="0 sequences read"):
        build_source(_recipe(empty), "fa", bpe_dir, tmp_path / "out2")


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
    with pytest.raises(MachineError, match="no room left"):
        build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    monkeypatch.setattr(shards_module, "write_bytes", real)
    build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    build_source(_recipe(corpus), "fa", bpe_dir, tmp_path / "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_held_out_documents_are_in_no_shard(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    held = {"sources": ["fa"], "share": 0.2}
    recipe = _recipe(corpus, heldout=held, data={"seq_len": 2048})
    manifest = build_source(recipe, "fa", bpe_dir, tmp_path / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    served = {tokenizer.decode(ids, skip_special=True) for ids in documents_of(tmp_path / "out")}
    out = {text for _, text in held_out_texts(recipe, "fa")}
    assert 200 < len(out) < 320 and manifest.documents_held_out >= len(out)
    assert not served & out
    assert served == set(training_texts(recipe, ["fa"]))
    assert not list(held_out_texts(recipe, "en"))


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_token_type_follows_the_vocabulary(vocab_size: int, dtype: Any) -> None:
    highest = vocab_size - 1
    piece = shards_module.Piece(np.array([1, highest], dtype=np.uint32))
    arrays = shards_module.shard_arrays([[piece]], 4, vocab_size, 0)
    assert arrays["tokens"].dtype == dtype
    assert arrays["tokens"][0].tolist() == [1, highest, 0, 0]


def test_missing_source_writes_nothing(bpe_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        build_source(_recipe(tmp_path / "none.jsonl"), "fa", bpe_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def real_corpus() -> Iterator[Path]:
    yield real_data() / "corpus"


@pytest.mark.slow
def test_real_text_fills_rows(real_corpus: Path, bpe_dir: Path, tmp_path: Path) -> None:
    files = [str(real_corpus / f"{name}-00.jsonl.gz") for name in ("docs_vue_fa", "wiki_pquad_validation")]
    recipe = make_recipe({"fa": {"uri": files}}, data={"seq_len": 2048, "open_sequences": 64})
    manifest = build_source(recipe, "fa", bpe_dir, tmp_path / "out")
    assert manifest.rejected == {} and manifest.tokens_lost == 0
    assert (
        manifest.fill > 0.97
    )  # a few hundred sequences of long documents; benchmarks/data.py has the large case
    tokenizer = FolderTokenizer(bpe_dir)
    texts = list(training_texts(recipe, ["fa"]))
    assert manifest.tokens == sum(map(len, tokenizer.encode_documents(texts)))

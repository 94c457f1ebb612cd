"""A build keeps every token, counts what it left out, and refuses what it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.common.errors import DataError, EmptyCorpusError, SourceError
from persianmind.data.build import job as job_module
from persianmind.data.build import shards as shards_module
from persianmind.language.persian import normalise
from persianmind.recipe import Normalise, Recipe
from persianmind.text.corpus import training_texts
from persianmind.text.heldout import held_out_fingerprints, read_held_out
from persianmind.text.spec import source_specs
from persianmind.tokenizer import FolderTokenizer
from tests.data.helpers import build, documents_of, files_of, make_bpe, make_recipe, sentences, write_jsonl
from tests.support.corpus import TEXT_FOLDER


def _training_texts(recipe: Recipe, heldout: Path | None = None) -> Iterator[str]:
    return training_texts(source_specs(recipe, ["fa"]), held_out_fingerprints(heldout))


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
    records = [{"text": f"متن {i} {text}"} for i, text in enumerate(texts)]
    recipe = _recipe(write_jsonl(folder / "c.jsonl", records), data={"seq_len": 16, "sequences_per_shard": 3})
    manifest = build(recipe, "fa", bpe_dir, folder / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    clean = [normalise(record["text"], Normalise()) for record in records]
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
    build(_recipe(corpus, data={"seq_len": 2048}), "fa", bpe_dir, tmp_path / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    served = {tokenizer.decode(ids, skip_special=True) for ids in documents_of(tmp_path / "out")}
    assert normalise(sentences(1300, seed=3)[5], Normalise()) in served
    assert len(served) == 1297  # 1,300 less two bad records and one duplicate


def test_counts_and_quarantine(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    manifest = build(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    assert manifest.records_read == 1300
    assert manifest.rejected == {"missing_field": 1, "wrong_type": 1}
    assert {reason: one.count for reason, one in manifest.dropped.items()} == {"exact_duplicate": 1}
    assert manifest.dropped["exact_duplicate"].samples[0]["place"] == "b.jsonl:201"
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 2
    assert '"file": "a.jsonl", "line": 8, "reason": "missing_field"' in quarantine[0]


def test_second_build_returns_at_once_and_touches_nothing(
    bpe_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(_recipe(corpus), "fa", bpe_dir, tmp_path / "out")
    before = files_of(tmp_path / "out")
    monkeypatch.setattr(job_module, "tokenised_batches", lambda *_: pytest.fail("read the source again"))
    assert build(_recipe(corpus), "fa", bpe_dir, tmp_path / "out") == first
    assert files_of(tmp_path / "out") == before


@pytest.mark.integration
def test_workers_change_no_byte(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    build(_recipe(corpus), "fa", bpe_dir, tmp_path / "one")
    build(_recipe(corpus), "fa", bpe_dir, tmp_path / "two", workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_shards_of_something_else_are_refused(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(_recipe(corpus), "fa", bpe_dir, out)
    before = files_of(out)
    other = make_bpe(tmp_path / "other", vocab_size=500, seed=9)
    with pytest.raises(DataError, match="other tokenizer"):
        build(_recipe(corpus), "fa", other, out)
    with pytest.raises(DataError, match="other options"):
        build(_recipe(corpus, data={"seq_len": 32}), "fa", bpe_dir, out)
    write_jsonl(corpus / "c.jsonl", [{"text": "متن تازه"}])
    with pytest.raises(DataError, match="other source"):
        build(_recipe(corpus), "fa", bpe_dir, out)
    assert files_of(out) == before


def test_nothing_usable_is_a_named_error(bpe_dir: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": "متن"}])
    with pytest.raises(EmptyCorpusError, match="too_short"):
        build(_recipe(path, quality={"min_characters": 10}), "fa", bpe_dir, tmp_path / "out")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(SourceError, match=r"empty\.jsonl cannot be read: empty: 0 bytes"):
        build(_recipe(empty), "fa", bpe_dir, tmp_path / "out2")


def test_held_out_documents_are_in_no_shard(bpe_dir: Path, corpus: Path, tmp_path: Path) -> None:
    held = {"sources": ["fa"], "ratio": 0.2}
    recipe = _recipe(corpus, heldout=held, data={"seq_len": 2048})
    manifest = build(recipe, "fa", bpe_dir, tmp_path / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    served = {tokenizer.decode(ids, skip_special=True) for ids in documents_of(tmp_path / "out")}
    out = {one.text for one in read_held_out(tmp_path / "heldout", "fa")}
    assert 200 < len(out) < 320 and manifest.documents_held_out >= len(out)
    assert not served & out
    assert served == set(_training_texts(recipe, tmp_path / "heldout"))


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_token_type_follows_the_vocabulary(vocab_size: int, dtype: Any) -> None:
    highest = vocab_size - 1
    piece = shards_module.Piece(np.array([1, highest], dtype=np.uint32))
    arrays = shards_module.shard_arrays([[piece]], 4, vocab_size, 0)
    assert arrays["tokens"].dtype == dtype
    assert arrays["tokens"][0].tolist() == [1, highest, 0, 0]


def test_missing_source_writes_nothing(bpe_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        build(_recipe(tmp_path / "none.jsonl"), "fa", bpe_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_text_fills_sequences(bpe_dir: Path, tmp_path: Path) -> None:
    recipe = make_recipe({"fa": {"uri": str(TEXT_FOLDER)}}, data={"seq_len": 2048, "open_sequences": 64})
    manifest = build(recipe, "fa", bpe_dir, tmp_path / "out")
    assert manifest.rejected == {} and manifest.tokens_lost == 0
    assert manifest.fill > 0.97  # some hundred sequences; benchmarks/data.py has the large case
    tokenizer = FolderTokenizer(bpe_dir)
    texts = list(_training_texts(recipe))
    assert manifest.tokens == sum(map(len, tokenizer.encode_documents(texts)))

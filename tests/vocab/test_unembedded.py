"""A tokenizer with an id past the model's table, as Gemma 3 1B has one: the expansion begins where the table
ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import RANDOM_VOCAB, resolve_base
from persianmind.vocab.build import build_vocab
from tests.support.shipped import IMAGE, rewrite, with_image_token
from tests.vocab.helpers import package_texts, read_tree
from tests.vocab.layouts import gemma

NEW = 60
DOCUMENTS = list(package_texts()[::8])


def random_llama(folder: Path) -> Path:
    folder.mkdir()
    for path in resolve_base("random://llama").glob("tokenizer*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("family", ["sentencepiece", "byte_bpe"])
def test_new_ids_follow_the_table(family: str, tmp_path: Path) -> None:
    base = gemma(tmp_path / "base") if family == "sentencepiece" else random_llama(tmp_path / "base")
    table = RANDOM_VOCAB if family == "byte_bpe" else max(read_tree(base)["model"]["vocab"].values()) + 1
    with_image_token(base, table)
    assert len(AutoTokenizer.from_pretrained(base)) == table + 1  # as people report it of Gemma 3 1B
    built = build_vocab(base, lambda: iter(DOCUMENTS), tmp_path / "out", new_tokens=NEW, profile=PERSIAN)
    assert (built.base_vocab, built.added) == (table, NEW)
    assert not any(IMAGE.encode() in path.read_bytes() for path in (tmp_path / "out").iterdir())
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(loaded) == table + NEW
    ids = loaded("دل می‌رود ز دستم", add_special_tokens=False)["input_ids"]
    assert any(table <= token_id < table + NEW for token_id in ids)


def test_an_id_within_the_table_stays(tmp_path: Path) -> None:
    base = with_image_token(random_llama(tmp_path / "base"), RANDOM_VOCAB)
    rewrite(base / "config.json", vocab_size=RANDOM_VOCAB + 1)
    built = build_vocab(base, lambda: iter(DOCUMENTS), tmp_path / "out", new_tokens=NEW, profile=PERSIAN)
    assert built.base_vocab == RANDOM_VOCAB + 1
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(IMAGE) == RANDOM_VOCAB

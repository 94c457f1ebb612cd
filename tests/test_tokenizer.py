"""Tokenising: parity with the saved tokenizer, one begin and one end of text, and the fast path's gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from persianmind.common.errors import DataError
from persianmind.tokenizer import HARD_STRINGS, FastEncoder, FolderTokenizer
from tests.data.helpers import build, make_bpe, make_metaspace, make_recipe, sentences, write_jsonl


@pytest.fixture(scope="module")
def bpe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bpe(tmp_path_factory.mktemp("tokenizers") / "bpe")


@pytest.fixture(scope="module")
def metaspace_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_metaspace(tmp_path_factory.mktemp("tokenizers") / "metaspace")


@pytest.mark.parametrize("kind", ["bpe", "metaspace"])
def test_ids_are_those_of_transformers(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_dir")
    ours, reference = FolderTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    texts = [*sentences(100), *HARD_STRINGS]
    assert ours.encode(texts) == reference(texts, add_special_tokens=False)["input_ids"]
    for document, text in zip(ours.encode_documents(texts), texts, strict=True):
        assert document.tolist() == [*reference(text)["input_ids"], reference.eos_token_id]
    assert (ours.bos_id is None) == (kind == "bpe")
    for text in sentences(20):
        assert ours.decode(ours.encode([text])[0]) == text


def test_stated_add_bos_token_wins(tmp_path: Path) -> None:
    stated = make_bpe(tmp_path / "a", bos_token="<|im_start|>", add_bos_token=True)
    assert FolderTokenizer(stated).bos_id == FolderTokenizer(stated).named_id("bos_token") is not None
    silent = make_bpe(tmp_path / "b", bos_token="<|im_start|>")
    assert FolderTokenizer(silent).bos_id is None


def test_saved_truncation_and_padding_do_not_cut_documents(bpe_dir: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bpe_dir / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    folder = make_bpe(tmp_path / "t")
    tokenizer.save(str(folder / "tokenizer.json"))
    text = sentences(1, words=(50, 50))[0]
    assert len(FolderTokenizer(folder).encode([text])[0]) > 50
    assert len(FolderTokenizer(folder).encode(["a"])[0]) == 1


def test_end_of_text_is_found_or_named(tmp_path: Path) -> None:
    folder = make_bpe(tmp_path / "t")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match="names no end-of-text token"):
        FolderTokenizer(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    assert FolderTokenizer(folder).eos_id == 2


@pytest.mark.parametrize(
    "stated", ["{{ 1 }}", [{"name": "tools", "template": "x"}, {"name": "default", "template": "y"}]]
)
def test_templates_are_given_what_transformers_gives_them(tmp_path: Path, stated: Any) -> None:
    end = {
        "content": "<|im_end|>",
        "__type": "AddedToken",
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    folder = make_bpe(tmp_path / "t", chat_template=stated, bos_token="<|im_start|>", unk_token=end)
    ours, reference = FolderTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.named_tokens == {name: str(token) for name, token in reference.special_tokens_map.items()}
    assert ours.chat_template() == reference.get_chat_template()
    (folder / "chat_template.jinja").write_text("{{ 2 }}")
    assert FolderTokenizer(folder).chat_template() == "{{ 2 }}"
    assert AutoTokenizer.from_pretrained(folder).get_chat_template() == "{{ 2 }}"


def test_tokens_are_located_in_a_text(bpe_dir: Path) -> None:
    tokenizer = FolderTokenizer(bpe_dir)
    text = "کتاب 🙂<|im_end|>\u200c"
    (located,) = tokenizer.encode_located([text])
    assert located.ids.tolist() == tokenizer.encode([text], parse_special=True)[0]
    last = located.token_at(text.index("<") + 3)
    assert last is not None and tokenizer.token_text(int(located.ids[last])) == "<|im_end|>"
    assert located.starts_at(last) == text.index("<")
    first = located.token_at(text.index("🙂"))  # of several tokens, its bytes'
    assert first is not None and located.starts_at(first) <= text.index("🙂") and first < last - 1


def test_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    folder = make_bpe(tmp_path / "t")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="is no tokenizer"):
        FolderTokenizer(folder)


def test_a_piece_of_evaluated_text_is_led_by_the_bos_the_folder_names(tmp_path: Path, bpe_dir: Path) -> None:
    named = FolderTokenizer(make_bpe(tmp_path / "a", bos_token="<|im_start|>"))
    assert named.bos_id is None and named.bos_or_eos_id == named.named_id("bos_token")
    none = FolderTokenizer(bpe_dir)
    assert none.bos_or_eos_id == none.eos_id


def test_fingerprint_follows_every_file_that_tokenising_depends_on(tmp_path: Path) -> None:
    folder = make_bpe(tmp_path / "t")
    before = FolderTokenizer(folder).fingerprint()
    (folder / "README.md").write_text("no file of the tokenizer")
    assert FolderTokenizer(folder).fingerprint() == before
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert FolderTokenizer(folder).fingerprint() != before


@pytest.fixture(scope="module")
def sentencepiece_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has a tokenizer.model alone, as Llama 2's own repository."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(300)),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    return folder


def test_a_sentencepiece_model_alone_is_read(sentencepiece_dir: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    reference = SentencePieceProcessor(model_file=str(sentencepiece_dir / "tokenizer.model"))
    tokenizer = FolderTokenizer(sentencepiece_dir)
    texts = sentences(50)
    assert tokenizer.encode(texts) == [reference.encode(text) for text in texts]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 400)
    assert tokenizer.bos_or_eos_id == 1 and tokenizer.special_tokens() == ["</s>", "<s>"]
    document = tokenizer.encode_documents(texts[:1])[0].tolist()
    assert document == [1, *reference.encode(texts[0]), 2]
    assert tokenizer.decode(document[1:-1]) == texts[0]


def test_a_damaged_sentencepiece_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"tokenizer\.model is no tokenizer"):
        FolderTokenizer(tmp_path)


def _codes(texts: Sequence[str]) -> list[list[int]]:
    return [[ord(letter) for letter in text] for text in texts]


def _specials_parsed(texts: Sequence[str]) -> list[list[int]]:
    return [[-1] if "<s>" in text else ids for text, ids in zip(texts, _codes(texts), strict=True)]


def test_fast_path_leaves_special_strings_to_the_exact_tokenizer() -> None:
    encoder = FastEncoder(_specials_parsed, _codes, ["<s>"])
    texts = ["ab", "a<s>b", "c"]
    for _ in texts:
        assert encoder(texts) == _codes(texts)


def test_fast_path_that_differs_is_caught_within_a_few_batches() -> None:
    def wrong_once(texts: Sequence[str]) -> list[list[int]]:
        return [
            [*ids[:-1], 0] if text == "third" else ids for text, ids in zip(texts, _codes(texts), strict=True)
        ]

    encoder = FastEncoder(wrong_once, _codes, [])
    with pytest.raises(DataError, match=r"data\.fast_tokenizer=false"):
        for _ in range(3):
            encoder(["first", "second", "third"])


def test_fast_and_ordinary_builds_are_the_same_bytes(bpe_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gigatoken", reason="the optional package gigatoken is not installed")
    assert FolderTokenizer(bpe_dir, fast=True).is_fast
    texts = [*sentences(500), "الف <|endoftext|> ب", *HARD_STRINGS]
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": f"متن {text}"} for text in texts])
    for name, fast in (("fast", True), ("plain", False)):
        recipe = make_recipe({"fa": {"uri": str(path)}}, data={"fast_tokenizer": fast})
        build(recipe, "fa", bpe_dir, tmp_path / name)
    files = sorted(one.name for one in (tmp_path / "plain").glob("shard-*"))
    assert files
    assert all((tmp_path / "fast" / n).read_bytes() == (tmp_path / "plain" / n).read_bytes() for n in files)

"""Every layout is expanded, and what is built is compared with its base by transformers and SentencePiece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import BaseModelError
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.export.gguf.vocabulary import read_vocab
from persianmind.tokenizer import FolderTokenizer
from persianmind.vocab.build import build_vocab
from persianmind.vocab.expansion import load_expansion
from persianmind.vocab.foreign import foreign_samples
from tests.vocab.byte_layouts import BYTE_LEVEL, make_layout
from tests.vocab.helpers import mistral_model, package_texts, read_tree
from tests.vocab.layouts import BARE, SENTENCEPIECE, SPACE, llama_2

NEW = 150
SOON = ("chatml", "phi-3", "gemma", "mistral-v7", "llama-3", "qwen-3")  # the others: make test-more
WITHOUT_JSON = {*BARE, "chatml-listed"}
DOCUMENTS = list(package_texts()[::8])
# A price struck out in HTML, and what else looks like a token and is text.
LITERAL = (
    "قیمت <s>۱۲۰</s> هزار <unk> [INST] ۱۰۰ [/INST] [REF] تومان <|im_end|> <|end|> <eos> <start_of_turn> است"
)
SIZES = {
    "llama-2": 32_000, "chatml": 32_002, "chatml-listed": 32_002, "mistral-v2": 32_768, "mistral-v3": 32_768,
    "mistral-v7": 32_768, "phi-3": 32_011,
}  # fmt: skip


def auto(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


class Layout:
    """A base, what was built from it, and both as transformers loads them."""

    def __init__(self, name: str, base: Path, out: Path) -> None:
        self.name, self.base_path, self.out = name, base, out
        self.expansion = build_vocab(
            base, lambda: iter([*DOCUMENTS, LITERAL]), out, new_tokens=NEW, profile=PERSIAN
        )
        self.base = None if name in WITHOUT_JSON else auto(base)
        self.tokenizer = auto(out)


@pytest.fixture(
    scope="module",
    params=[
        *SOON,
        *(
            pytest.param(name, marks=pytest.mark.more)
            for name in (*SENTENCEPIECE, *BARE, *BYTE_LEVEL)
            if name not in SOON
        ),
    ],
)
def layout(request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("layouts") / request.param
    return Layout(request.param, make_layout(request.param, smollm2, folder / "base"), folder / "out")


def test_size(layout: Layout) -> None:
    assert layout.expansion.added == NEW
    assert len(layout.tokenizer) == layout.expansion.base_vocab + NEW == load_expansion(layout.out).size
    if layout.base is not None:
        assert layout.expansion.base_vocab == len(layout.base)
    assert SIZES.get(layout.name, layout.expansion.base_vocab) == layout.expansion.base_vocab


def test_ids_of_other_text(layout: Layout) -> None:
    samples = list(foreign_samples())
    after = layout.tokenizer(samples, add_special_tokens=False)["input_ids"]
    if layout.base is not None:
        assert after == layout.base(samples, add_special_tokens=False)["input_ids"]
    else:
        from sentencepiece import SentencePieceProcessor

        model = layout.base_path if layout.name in BARE else layout.base_path / "tokenizer.model"
        # this layout takes a first space for the prefix, as Mistral's own tokenizer.json does
        samples = [text.lstrip(" ") for text in samples] if layout.name == "mistral-v7" else samples
        after = layout.tokenizer(samples, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert after == SentencePieceProcessor(model_file=str(model)).encode(samples)


def test_ids_beside_special_tokens(layout: Layout) -> None:
    """What chat templates write: a role, a line end, text; a token that takes the space after it away."""
    if layout.base is None:
        pytest.skip("the base itself reads no special tokens")
    tokens = [str(token) for _, token in sorted(layout.base.added_tokens_decoder.items())]
    texts = [
        f"{token}user{other}\nHow are you?{token}\n{other} Fine,{token}thanks{token}{token}. 1 + 1{other}"
        for token, other in zip(tokens, [*tokens[1:], tokens[0]], strict=True)
    ]
    for special in (True, False):
        after = layout.tokenizer(texts, add_special_tokens=special)["input_ids"]
        assert after == layout.base(texts, add_special_tokens=special)["input_ids"]
    for token in read_tree(layout.base_path)["added_tokens"]:
        kept = layout.tokenizer.added_tokens_decoder[token["id"]]
        assert {key: getattr(kept, key) for key in token if key != "id"} | {"id": token["id"]} == token
        assert layout.tokenizer.encode(token["content"], add_special_tokens=False) == [token["id"]]


def test_round_trip(layout: Layout) -> None:
    texts = [*DOCUMENTS, LITERAL]
    ids = layout.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    decoded = [layout.tokenizer.decode(one) for one in ids]
    assert decoded[:-1] == DOCUMENTS
    if layout.name == "phi-3":  # its </s> is not special and takes the space after it away
        assert decoded[-1] == LITERAL.replace("</s> ", "</s>")
    else:
        assert decoded[-1] == LITERAL


def test_tokenizers_and_transformers_and_training_agree(layout: Layout) -> None:
    from tokenizers import Tokenizer

    texts = [*DOCUMENTS, LITERAL, *foreign_samples()[::20]]
    plain = Tokenizer.from_file(str(layout.out / "tokenizer.json"))
    as_read = layout.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [one.ids for one in plain.encode_batch(texts, add_special_tokens=False)] == as_read
    as_text = layout.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ours = FolderTokenizer(layout.out)
    assert ours.encode(texts) == as_text
    assert ours.encode(texts, parse_special=True) == as_read
    if (layout.out / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        model = SentencePieceProcessor(model_file=str(layout.out / "tokenizer.model"))
        assert len(model) == len(layout.tokenizer)
        assert model.encode(DOCUMENTS) == as_text[: len(DOCUMENTS)]


def test_new_pieces_are_reached(layout: Layout) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    level, model = (
        ByteLevel(add_prefix_space=False, use_regex=False),
        layout.tokenizer.backend_tokenizer.model,
    )
    model.ignore_merges = False
    for piece in layout.expansion.pieces:
        is_byte_level = layout.expansion.family == "byte-bpe"
        part = level.pre_tokenize_str(piece.text)[0][0] if is_byte_level else piece.text.replace(" ", SPACE)
        assert [token.id for token in model.tokenize(part)] == [piece.id]
    used = {i for ids in layout.tokenizer(DOCUMENTS, add_special_tokens=False)["input_ids"] for i in ids}
    new = {piece.id for piece in layout.expansion.pieces}
    assert len(used & new) > 0.9 * NEW


def test_what_is_written_as_gguf(layout: Layout) -> None:
    """llama.cpp puts the prefix space after every special token, or nowhere."""
    size = layout.expansion.size
    if layout.name in ("mistral-v3", "mistral-v7", "phi-3"):
        with pytest.raises(BaseModelError, match=r"prefix space.*--format hf"):
            read_vocab(layout.out, size)
    elif layout.expansion.family == "sentencepiece":
        assert read_vocab(layout.out, size).space_prefix == (layout.name != "gemma")


def test_tokenizer_json_is_kept_to_where_the_config_says_otherwise(tmp_path: Path) -> None:
    """Llama 2's own folder: `legacy: false` in the config, and a tokenizer.json that puts the prefix space
    after special tokens too. It was trained so, and llama.cpp reads it so."""
    from tokenizers import Tokenizer

    base = llama_2(tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "legacy": False}))
    build_vocab(base, lambda: iter(()), tmp_path / "out", new_tokens=0, profile=PERSIAN)
    before = Tokenizer.from_file(str(base / "tokenizer.json"))
    for text in ("<s>Hello</s> Hello", "[INST] Hi [/INST]</s><s>[INST] x"):
        ids = auto(tmp_path / "out").encode(text, add_special_tokens=False)
        assert ids == before.encode(text, add_special_tokens=False).ids


def test_the_reference_run_has_41_510_ids(tmp_path: Path) -> None:
    """32,000 and 9,510, exactly: with a stand-in for Llama 2's own tokenizer.model."""
    twice = [*package_texts(), *package_texts()]  # a pair that occurs once makes no piece
    expansion = build_vocab(
        mistral_model(), lambda: iter(twice), tmp_path / "out", new_tokens=9_510, profile=PERSIAN
    )
    assert (expansion.base_vocab, expansion.added, expansion.size) == (32_000, 9_510, 41_510)
    assert len(auto(tmp_path / "out")) == 41_510

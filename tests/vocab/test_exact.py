"""The promises of an expansion, asked of the saved folders as a user loads them."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.language.persian import normalise
from persianmind.vocab.build import build_vocab
from persianmind.vocab.expansion import load_expansion
from persianmind.vocab.families import open_base
from persianmind.vocab.foreign import foreign_samples
from tests.support.corpus import TEXT_NAMES, sample_documents
from tests.vocab.helpers import NEW_TOKENS, mistral_model, package_texts, read_tree

NAMES = ["smollm2", "llama-3-like", "qwen-like", "mistral"]


@cache
def load(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_sizes(name: str, bases: dict[str, Path], built: dict[str, Path]) -> None:
    base, tokenizer, expansion = open_base(bases[name]), load(built[name]), load_expansion(built[name])
    pad = name == "mistral"
    assert (expansion.base_vocab, expansion.added) == (base.size, NEW_TOKENS + pad)
    assert len(tokenizer) == expansion.size
    assert [piece.id for piece in expansion.pieces] == list(range(base.size, expansion.size))
    for piece in expansion.pieces[: len(expansion.pieces) - pad]:
        assert tokenizer.decode([piece.id]) in (piece.text, piece.text.removeprefix(" "))
        assert base.decode(piece.base_ids).removeprefix(" ") == piece.text.removeprefix(" ")
        assert list(piece.base_ids) == base.ids_of(piece.text)
        assert PERSIAN.is_valid_piece(piece.text)
    assert len({piece.text for piece in expansion.pieces}) == expansion.added


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_and_gain(name: str, bases: dict[str, Path], built: dict[str, Path]) -> None:
    tokenizer, base = load(built[name]), open_base(bases[name])
    texts = package_texts()
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for text, text_ids in zip(texts, ids, strict=True):
        assert tokenizer.decode(text_ids) == text
    assert sum(map(len, ids)) < 0.5 * sum(map(len, base.encode(texts)))


_WILD = st.text(
    st.one_of(
        st.sampled_from("سلام می\u200cروم کتاب\u200cها ۱۲،؟ abc\n .«»é"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_round_trip_of_any_text(name: str, built: dict[str, Path]) -> None:
    tokenizer = load(built[name])
    # bytes that SmolLM2's own vocabulary lacks: a loss of the base, not of the expansion
    lost = set("\u0004\u0006\u0013\u0014\u0016\u001d") if name == "smollm2" else {"\u2581"}
    specials = set(tokenizer.all_special_tokens)

    @settings(max_examples=600, deadline=None)
    @given(_WILD)
    def check(raw: str) -> None:
        text = normalise(raw)
        high = any(ord(c) >= 0x40000 for c in text)  # lead bytes f1-f4: SmolLM2 lacks some
        if not lost & set(text) and not high and not any(special in text for special in specials):
            assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text

    check()


@pytest.mark.parametrize("name", NAMES)
def test_other_text_keeps_its_ids(name: str, bases: dict[str, Path], built: dict[str, Path]) -> None:
    samples = list(foreign_samples())
    assert len(samples) > 1_500
    text = load(built[name])(samples, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert text == open_base(bases[name]).encode(samples)
    if name != "mistral":
        after = load(built[name])(samples, add_special_tokens=False)["input_ids"]
        assert after == load(bases[name])(samples, add_special_tokens=False)["input_ids"]


def test_any_text_without_arabic_script_keeps_its_ids(bases: dict[str, Path], built: dict[str, Path]) -> None:
    before, after = load(bases["smollm2"]), load(built["smollm2"])

    @settings(max_examples=600, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    def check(text: str) -> None:
        if not any("ARABIC" in unicodedata.name(c, "") or c == "\u200c" for c in text):
            assert after.encode(text) == before.encode(text)

    check()


def test_sentencepiece_files_agree(built: dict[str, Path]) -> None:
    from sentencepiece import SentencePieceProcessor

    reference = SentencePieceProcessor(model_file=str(built["mistral"] / "tokenizer.model"))
    tokenizer = load(built["mistral"])
    spaces = [f"{' ' * n}سلام{' ' * m}x{' ' * n}" for n in range(20) for m in range(20)]
    repeated = [c * n for c in "اهم،ـ؟۱ " for n in range(1, 40)]
    samples = [*package_texts(), *foreign_samples(), *spaces, *repeated]
    assert tokenizer(samples, add_special_tokens=False)["input_ids"] == reference.encode(samples)
    assert len(reference) == len(tokenizer) == reference.pad_id() + 1
    assert reference.id_to_piece(reference.pad_id()) == tokenizer.pad_token == "[PAD]"


def test_sentencepiece_scores_continue_below_the_base(built: dict[str, Path]) -> None:
    from sentencepiece import sentencepiece_model_pb2

    old, new = sentencepiece_model_pb2.ModelProto(), sentencepiece_model_pb2.ModelProto()
    old.ParseFromString(mistral_model().read_bytes())
    new.ParseFromString((built["mistral"] / "tokenizer.model").read_bytes())
    size = len(old.pieces)
    assert list(new.pieces[:size]) == list(old.pieces)
    scores = [piece.score for piece in new.pieces[size:-1]]
    assert scores[0] < min(piece.score for piece in old.pieces)
    assert all(a > b for a, b in itertools.pairwise(scores))


@pytest.mark.parametrize("name", ["smollm2", "llama-3-like", "qwen-like"])
def test_byte_level_base_is_kept(name: str, bases: dict[str, Path], built: dict[str, Path]) -> None:
    old, new = read_tree(bases[name]), read_tree(built[name])
    merges = old["model"]["merges"]
    assert new["model"]["merges"][: len(merges)] == merges
    assert {token: new["model"]["vocab"][token] for token in old["model"]["vocab"]} == old["model"]["vocab"]
    for key in ("added_tokens", "pre_tokenizer", "normalizer", "post_processor", "decoder"):
        assert new[key] == old[key]
    before, after = load(bases[name]), load(built[name])
    for token in old["added_tokens"]:
        assert after.convert_tokens_to_ids(token["content"]) == token["id"]
        assert after.encode(f"a{token['content']}b") == before.encode(f"a{token['content']}b")
    chat = [{"role": "user", "content": "Hello, who are you?"}]
    assert after.apply_chat_template(chat, tokenize=False) == before.apply_chat_template(chat, tokenize=False)
    assert (after.bos_token, after.eos_token, after.pad_token) == (
        before.bos_token,
        before.eos_token,
        before.pad_token,
    )


def test_zwnj_words_survive(built: dict[str, Path]) -> None:
    words = ["می‌روم", "نمی‌خواسته‌ام", "کتاب‌های", "بین‌المللی", "۲۰‌ساله", "API‌ها"]
    for folder in built.values():
        tokenizer = load(folder)
        for word in words:
            assert tokenizer.decode(tokenizer.encode(word, add_special_tokens=False)) == word


def test_same_bytes_in_any_order_and_process(smollm2: Path, tmp_path: Path) -> None:
    script = (
        "import random, sys; from pathlib import Path\n"
        "from tests.vocab.helpers import package_texts; from persianmind.vocab.build import build_vocab\n"
        "from persianmind.language.persian import PROFILE\n"
        "texts = list(package_texts())[::4]; random.Random(int(sys.argv[3])).shuffle(texts)\n"
        "build_vocab(Path(sys.argv[1]), lambda: iter(texts), Path(sys.argv[2]), new_tokens=300, "
        "profile=PROFILE)\n"
    )
    folders = []
    for seed, threads in ((1, "1"), (2, "2")):
        out = tmp_path / f"out-{seed}"
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(seed),
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
        }
        command = [sys.executable, "-c", script, smollm2, out, str(seed)]
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
        folders.append(out)
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == sorted(path.name for path in folders[1].iterdir())
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


@pytest.mark.parametrize("base", ["smollm2", "mistral"])
def test_nothing_new_leaves_every_id(base: str, bases: dict[str, Path], tmp_path: Path) -> None:
    def no_text() -> Iterator[str]:
        raise AssertionError("no text is needed when nothing is learned")

    expansion = build_vocab(bases[base], no_text, tmp_path / "out", new_tokens=0, profile=PERSIAN)
    assert (expansion.added, expansion.pieces) == (0, ())
    texts = [*package_texts()[:200], *foreign_samples()]
    after = load(tmp_path / "out")(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert after == open_base(bases[base]).encode(texts)


@pytest.mark.parametrize("base", ["smollm2", "mistral"])
def test_train_size_takes_all_the_new_pieces_of_a_bpe(
    base: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """The paper's way: 10,000 trained, 9,509 of them new, and [PAD] as the last id."""
    out = tmp_path / "out"
    expansion = build_vocab(
        bases[base],
        lambda: iter(package_texts()),
        out,
        new_tokens=0,
        train_size=2_000,
        pad_token=True,
        profile=PERSIAN,
    )
    learned = expansion.added - 1
    assert 1_000 < learned < 2_000 - 259
    assert expansion.left_out <= 0.02 * learned
    tokenizer = load(out)
    assert tokenizer.pad_token_id == expansion.pad_id == len(tokenizer) - 1
    assert expansion.pieces[-1].text == "[PAD]" and expansion.pieces[-1].base_ids == ()
    assert tokenizer.encode("[PAD]", add_special_tokens=False) == [expansion.pad_id]


def test_added_tokens_after_a_sentencepiece_model_keep_their_ids(tmp_path: Path) -> None:
    """A chat model's folder: tokens 32,000 and on are in the config only, new pieces come after them."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.model").write_bytes(mistral_model().read_bytes())
    entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    decoder = {str(32_000 + i): {"content": f"<|chat_{i}|>", **entry} for i in range(2)}
    config = {
        "added_tokens_decoder": decoder,
        "tokenizer_class": "LlamaTokenizer",
        "chat_template": "{{ 1 }}",
    }
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    expansion = build_vocab(base, lambda: iter(package_texts()[:300]), out, new_tokens=200, profile=PERSIAN)
    tokenizer = load(out)
    assert (expansion.base_vocab, len(tokenizer)) == (32_002, 32_202)
    assert tokenizer.encode("<|chat_1|>", add_special_tokens=False) == [32_001]
    assert tokenizer.chat_template == "{{ 1 }}"
    text = random.Random(0).choice(package_texts()[:300])
    assert tokenizer.encode(text, add_special_tokens=False) == open_base(out).encode([text])[0]


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_seven_thousand_sentences_that_no_vocabulary_saw(name: str, built: dict[str, Path]) -> None:
    """Of other sources than the vocabulary's: spoken prompts, manuals, lessons, questions."""
    tokenizer = load(built[name])
    documents = [text for source in TEXT_NAMES for text in sample_documents(source)]
    sentences = [one for text in documents for one in re.split(r"(?<=[.!?؟\n])\s*", normalise(text)) if one]
    assert len(sentences) > 7_000
    ids = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    wrong = [
        text
        for text, one in zip(sentences, ids, strict=True)
        if tokenizer.decode(one, clean_up_tokenization_spaces=False) != text
    ]
    assert wrong == []

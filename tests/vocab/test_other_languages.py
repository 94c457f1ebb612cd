"""Vocabularies of languages that have no profile of their own, on text that installed packages carry."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from persianmind.common.errors import EmptyCorpusError, VocabError
from persianmind.language import profile_for
from persianmind.text.sources.package import read_package
from persianmind.vocab.build import build_vocab
from persianmind.vocab.expansion import Expansion
from persianmind.vocab.foreign import foreign_samples
from tests.vocab.helpers import mistral_model

# Language, its catalogue, and the scripts of text that may change: its own alone.
CODES = [
    "ka",
    "tr",
    *(pytest.param(code, marks=pytest.mark.more) for code in ("hi", "ur", "ckb", "ug", "ar", "th", "my")),
]
NEW_TOKENS = 300
# Byte-level bases split words before each mark, so a short text supports few pieces of Burmese.
FEWER = {"my": 120}
OTHERS = ("Привет, мир", "ελληνικά", "עברית", "中文字", "한국어 말", "தமிழ் மொழி", "አማርኛ", "हिन्दी।", "বাংলা।")


@cache
def messages(code: str) -> tuple[str, ...]:
    profile = profile_for(code)
    return tuple(profile.normalise(str(one.fields["text"])) for one in read_package("s", f"gettext-{code}"))


def training(code: str) -> list[str]:
    return [text for i, text in enumerate(messages(code)) if i % 5]


def held_out(code: str) -> list[str]:
    return list(messages(code)[::5])


def build(base: Path, code: str, out: Path) -> Expansion:
    return build_vocab(
        base,
        lambda: iter(training(code)),
        out,
        new_tokens=FEWER.get(code, NEW_TOKENS),
        profile=profile_for(code),
    )


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_an_expansion_of_any_script(name: str, code: str, bases: dict[str, Path], tmp_path: Path) -> None:
    """By transformers alone: ids of all text without the script as they were, every text given back."""
    expansion = build(bases[name], code, tmp_path / "out")
    profile = profile_for(code)
    assert expansion.added == FEWER.get(code, NEW_TOKENS)
    assert all(one.is_part or profile.is_valid_piece(one.text) for one in expansion.pieces)
    fertility = expansion.fertility[code]
    # Of Latin script only pieces with a letter outside ASCII are added: less is won.
    assert fertility.after < fertility.before * (0.95 if code == "tr" else 0.75)
    assert expansion.fertility["en"].before == expansion.fertility["en"].after

    expanded = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in held_out(code):
        ids = expanded.encode(text, add_special_tokens=False)
        assert expanded.decode(ids, clean_up_tokenization_spaces=False) == text
    others = [
        text for text in (*foreign_samples()[::7], *OTHERS) if not profile.script.character.search(text)
    ]
    assert len(others) > 200
    if name == "mistral":
        before = SentencePieceProcessor(model_file=str(bases[name]))
        after = SentencePieceProcessor(model_file=str(tmp_path / "out" / "tokenizer.model"))
        assert before.encode(others) == after.encode(others)
        for text in held_out(code):
            assert after.encode(text) == expanded.encode(text, add_special_tokens=False)
    else:
        base = AutoTokenizer.from_pretrained(bases[name])
        for text in others:
            ids = base.encode(text, add_special_tokens=False)
            assert ids == expanded.encode(text, add_special_tokens=False), text


def test_ids_of_ascii_text_stay_whatever_turkish_brings(smollm2: Path, tmp_path: Path) -> None:
    """Words of ASCII letters. The control: where these count as the alphabet's own, their ids change."""
    build(smollm2, "tr", tmp_path / "out")
    profile = profile_for("tr")
    own = replace(profile.script, letters=f"A-Za-z{profile.script.letters}", shared="")
    texts = training("tr")
    build_vocab(
        smollm2, lambda: iter(texts), tmp_path / "own", new_tokens=100, profile=replace(profile, script=own)
    )
    folders = (smollm2, tmp_path / "out", tmp_path / "own")
    base, expanded, control = (AutoTokenizer.from_pretrained(one) for one in folders)
    words = {word for text in messages("tr") for word in text.split() if word.isascii()}
    assert len(words) > 1_000
    text = " ".join(sorted(words))
    assert base.encode(text) == expanded.encode(text) != control.encode(text)


@pytest.mark.more
def test_characters_that_the_base_lacks_become_whole_ones(bases: dict[str, Path], tmp_path: Path) -> None:
    """A third of the letters of Burmese is three byte tokens each in Mistral's vocabulary."""
    expansion = build(bases["mistral"], "my", tmp_path / "out")
    single = [one for one in expansion.pieces if len(one.text) == 1]
    assert len(single) > 25 and all(len(one.base_ids) == 3 for one in single)
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokens = [token for text in held_out("my") for token in after.tokenize(text)]
    assert sum(token.startswith("<0x") for token in tokens) < 0.02 * len(tokens)
    before = AutoTokenizer.from_pretrained(
        build_twin(bases["mistral"], tmp_path / "twin"),
    )
    tokens = [token for text in held_out("my") for token in before.tokenize(text)]
    assert sum(token.startswith("<0x") for token in tokens) > 0.2 * len(tokens)


def build_twin(base: Path, out: Path) -> Path:
    """The base as a folder that transformers reads."""
    build_vocab(base, lambda: iter(()), out, new_tokens=0, profile=profile_for("en"))
    return out


@pytest.mark.more
def test_bytes_join_to_characters_in_a_byte_level_base(smollm2: Path, tmp_path: Path) -> None:
    expansion = build(smollm2, "my", tmp_path / "out")
    parts = [one for one in expansion.pieces if one.is_part]
    assert all(one.text.startswith(("\\x", " \\x")) for one in parts)
    base, expanded = (AutoTokenizer.from_pretrained(one) for one in (smollm2, tmp_path / "out"))
    letters = "ကခဂငစဆဇညတထဒနပဖဗဘမယရလဝသဟအ"
    assert len(base.tokenize(letters)) > 2 * len(letters)
    assert len(expanded.tokenize(letters)) < 2 * len(letters)


@pytest.mark.parametrize(("bound", "more_than", "new_tokens"), [(16, 8, 45), (30, 16, 60)])
def test_pieces_of_a_script_without_spaces_are_bounded(
    bound: int, more_than: int, new_tokens: int, tmp_path: Path
) -> None:
    """The control: with a wider bound they grow beyond it."""
    profile = profile_for("th")
    assert profile.script.max_piece_characters == 16
    script = replace(profile.script, max_piece_characters=bound)
    text = "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอนหรือวรรณยุกต์" * 40
    expansion = build_vocab(
        mistral_model(),
        lambda: iter([text] * 5),
        tmp_path / "out",
        new_tokens=new_tokens,
        profile=replace(profile, script=script),
    )
    assert more_than < max(len(one.text.strip()) for one in expansion.pieces) <= bound


def test_text_of_another_script_is_one_line(smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(EmptyCorpusError, match="holds no Georgian word; give other text, or name"):
        build_vocab(
            smollm2, lambda: iter(messages("hi")), tmp_path / "out", new_tokens=9, profile=profile_for("ka")
        )
    with pytest.raises(VocabError, match="supports no new piece") as caught:
        build_vocab(
            smollm2, lambda: iter(["ქართული"]), tmp_path / "out", new_tokens=9, profile=profile_for("ka")
        )
    assert "at most 0" not in str(caught.value)

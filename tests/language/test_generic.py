"""The generic profile on text that installed packages carry, in languages of many scripts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.language import profile_for
from persianmind.language.generic import GenericSpeller
from persianmind.language.unicode_scripts import unicode_script
from persianmind.recipe import Normalise, Quality
from persianmind.text.filters import judge
from persianmind.text.sources.package import read_package

CODES = ["hi", "ka", "tr", "ur", "ckb", "ug"]
OFF = Normalise(enabled=False)


def messages(code: str) -> list[str]:
    """Messages of packages in a language."""
    return [str(record.fields["text"]) for record in read_package("s", f"gettext-{code}")]


@pytest.mark.parametrize("code", [*CODES, "ar", "fa"])
def test_off_is_the_text_byte_for_byte(code: str) -> None:
    profile = profile_for(code)
    for text in [*messages(code), "كـتاب\u200f  مي e\u0301"]:
        assert profile.normalise(text, OFF) == text


@pytest.mark.parametrize("code", CODES)
def test_nfc_and_nothing_else(code: str) -> None:
    texts = messages(code)
    assert len(texts) > 50
    profile = profile_for(code)
    for text in texts:
        assert profile.normalise(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("code", ["ur", "ckb", "ug", "ar"])
def test_letters_and_vowels_of_other_languages_in_arabic_script_stay(code: str) -> None:
    """The control: by the rules of Persian most of these texts would lose some."""
    own, persian = profile_for(code), profile_for("fa")
    texts = messages(code)
    normal = [unicodedata.normalize("NFC", text).replace("\u0640", "") for text in texts]
    spelled = [own.normalise(text).replace("\u0640", "") for text in texts]
    letters = [[c for c in text if c.isalpha() or unicodedata.combining(c)] for text in normal]
    assert [[c for c in text if c.isalpha() or unicodedata.combining(c)] for text in spelled] == letters
    assert sum(persian.normalise(text) != text for text in texts) > len(texts) / 4


@pytest.mark.parametrize("code", [*CODES, "ar", "th", "km", "my", "ko", "hy", "ru", "zh_Hans"[:2]])
def test_good_text_passes_the_filters(code: str) -> None:
    folder = {"zh": "zh_Hans"}.get(code, code)
    profile = profile_for(code)
    texts = [text for text in messages(folder) if len(text) > 60]
    dropped = [text for text in texts if judge(profile.normalise(text), Quality(), profile)]
    assert len(texts) > 3 and len(dropped) <= 0.02 * len(texts), dropped[:3]


@pytest.mark.parametrize("code", ["hi", "ka", "tr", "th", "ru", "ur"])
def test_mojibake_is_seen(code: str) -> None:
    profile = profile_for(code)
    text = " ".join(messages(code))[:3000]
    garbled = text.encode("utf-8").decode("latin-1")
    options = Quality(max_symbol_ratio=1.0)
    assert judge(garbled, options, profile) == "mojibake"
    assert judge(garbled, options.model_copy(update={"mojibake": False}), profile) is None
    assert judge(text, options, profile) is None


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40))
def test_rules_of_replacements_are_idempotent(text: str) -> None:
    spell = GenericSpeller({"quotes": {"``": "„", "''": "“"}, "dashes": {"--": "–"}, "gone": {"x": ""}})
    once = spell(text)
    assert spell(once) == once


PIECES = {
    "ka": ([" ქალაქ", "ა", "ქართ"], ["the", "ა ბ", "ა.", "12", "aა"]),
    "tr": ([" şehir", "ğ", "çocuk", " İst", "ışı"], ["the", " the", "a", "ş.", " ş ş", "ж"]),
    "hi": ([" हिन्दी", "क्\u200dष", "१", " भारत"], ["\u200d", "।", "१२", "क ख", "the"]),
    "th": (["สวัสดี", " ไทย", "ก" * 16, "฿"], ["ก" * 17, "ก ข", "the"]),
    "ur": ([" ہے", "ۓ", "قُل", "،"], ["\u200c", "َ", "the", "۱۲"]),
    "zh": (["中国", "一" * 16], ["一" * 17, "。", "中a"]),
}


@pytest.mark.parametrize("code", PIECES)
def test_pieces(code: str) -> None:
    valid, not_valid = PIECES[code]
    profile = profile_for(code)
    assert [text for text in valid if not profile.is_valid_piece(text)] == []
    assert [text for text in not_valid if profile.is_valid_piece(text)] == []


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=12), st.sampled_from(["ka", "tr", "hi", "ur", "th", "ja", "ru"]))
def test_every_piece_holds_a_character_that_other_text_lacks(text: str, code: str) -> None:
    script = profile_for(code).script
    if script.is_piece(text):
        assert script.character.search(text)
    if code == "tr" and text.isascii():
        assert not script.character.search(text)


@pytest.mark.parametrize(
    ("names", "part", "is_part"),
    [
        ("Georgian", "\u10d0".encode()[:2], True),
        ("Georgian", b" " + "\u10d0".encode()[:2], True),
        ("Georgian", "\u10a0".encode()[:2], False),  # E1 82 begins letters of Burmese as well
        ("Georgian", b"\xe1", False),
        ("Devanagari", b"\xe0\xa4", True),
        ("Devanagari", b"\xe0\xa5", False),  # the danda, which a dozen scripts use
        ("Thai", b"\xe0\xb9", True),
        ("Georgian", b"\x83\x90", False),
        ("Georgian", "\u10d0".encode(), False),
    ],
)
def test_the_beginning_of_a_character(names: str, part: bytes, is_part: bool) -> None:
    assert unicode_script((names,)).is_part_of_character(part) is is_part

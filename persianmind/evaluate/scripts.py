"""Which script a text is written in, by its letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

# Of languages that tests name; any other is taken to be written in Latin script.
SCRIPT_OF = {
    **dict.fromkeys(("fa", "ar", "ur", "ckb", "ps"), "ARABIC"),
    **dict.fromkeys(("ru", "tg", "uk", "bg"), "CYRILLIC"),
    "hi": "DEVANAGARI", "el": "GREEK", "he": "HEBREW", "ka": "GEORGIAN", "th": "THAI", "ko": "HANGUL",
    "ja": "HIRAGANA", "zh": "CJK", "my": "MYANMAR", "am": "ETHIOPIC",
}  # fmt: skip


def script_counts(text: str) -> Counter[str]:
    """Letters by script, by the first word of their Unicode names."""
    return Counter(_script(character) for character in text if character.isalpha())


def script_ratio(text: str, language: str) -> float | None:
    """The part of a text's letters that its language is written in; None for a text without letters."""
    counts = script_counts(text)
    total = sum(counts.values())
    return counts[SCRIPT_OF.get(language, "LATIN")] / total if total else None


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split(" ", 1)[0].split("-", 1)[0]

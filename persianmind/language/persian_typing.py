"""What people type who write Persian: the same text without ZWNJ, with an Arabic keyboard, with diacritics,
in Latin letters. Tests put their items so, to see what a model makes of it."""

from __future__ import annotations

import random
import re

from persianmind.language.arabic_script import LETTERS, ZWNJ

_ARABIC = str.maketrans({"ی": "ي", "ک": "ك"} | {chr(0x06F0 + i): chr(0x0660 + i) for i in range(10)})
_SHORT_VOWELS = "َُِ"
_LATIN = {
    "آ": "a", "ا": "a", "ب": "b", "پ": "p", "ت": "t", "ث": "s", "ج": "j", "چ": "ch", "ح": "h",
    "خ": "kh", "د": "d", "ذ": "z", "ر": "r", "ز": "z", "ژ": "zh", "س": "s", "ش": "sh", "ص": "s",
    "ض": "z", "ط": "t", "ظ": "z", "ع": "a", "غ": "gh", "ف": "f", "ق": "gh", "ک": "k", "ك": "k",
    "گ": "g", "ل": "l", "م": "m", "ن": "n", "و": "v", "ه": "h", "ی": "i", "ي": "i", "ئ": "e",
    "ؤ": "o", "أ": "a", "ء": "", "ة": "e", "ۀ": "eye", "ى": "a", "،": ",", "؛": ";", "؟": "?",
    "٪": "%", ZWNJ: "",
}  # fmt: skip
_LATIN |= {chr(0x06F0 + i): str(i) for i in range(10)} | {chr(0x0660 + i): str(i) for i in range(10)}
_MARK = re.compile("[\u064b-\u065f\u0670]")
_LETTER = re.compile(f"[{LETTERS}]")


def without_zwnj(text: str) -> str:
    """The joiner as most keyboards have it: a space."""
    return text.replace(ZWNJ, " ")


def arabic_keyboard(text: str) -> str:
    """Arabic yeh, kaf and digits."""
    return text.translate(_ARABIC)


def with_diacritics(text: str) -> str:
    """A short vowel on every third letter; which one, goes by the text itself."""
    chosen = random.Random(text)
    count = 0

    def mark(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return match.group() + (chosen.choice(_SHORT_VOWELS) if count % 3 == 0 else "")

    return _LETTER.sub(mark, text)


def romanised(text: str) -> str:
    """Latin letters, as in messages; the short vowels, which Persian does not write, stay unwritten."""
    return "".join(_LATIN.get(character, character) for character in _MARK.sub("", text))


TYPING = {
    "without_zwnj": without_zwnj,
    "arabic_keyboard": arabic_keyboard,
    "with_diacritics": with_diacritics,
    "romanised": romanised,
}

"""The characters of any Unicode script, by the properties of the Unicode Character Database."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import regex

from persianmind.common.errors import RecipeError, nearest
from persianmind.language.script import Script

# Scripts that put no spaces between words.
UNSPACED = frozenset({"Thai", "Lao", "Khmer", "Myanmar", "Han", "Hiragana", "Katakana", "Tibetan", "Javanese",
                      "Balinese", "Tai_Tham", "New_Tai_Lue", "Tai_Le"})  # fmt: skip
MAX_UNSPACED_PIECE = 16
_RTL = {"R", "AL"}
_LAST_ASSIGNED = 0x323AF
# Planes of private use and unassigned codes apart: what has a script.
_ALL = "".join(chr(code) for code in range(0x80, _LAST_ASSIGNED + 1) if not 0xD800 <= code < 0xE000)
_JOINERS = "\u200c\u200d"
# Marks that Latin, Cyrillic and Greek words share; NFC leaves those that have no composed form.
_COMMON_MARKS = "\u0300-\u036f"
# They end sentences in a dozen scripts of India, whose text must keep its ids.
_DANDAS = "\u0964\u0965"
_JOINING = frozenset({"Arabic", "Syriac", "Mongolian", "Nko"})


@lru_cache(maxsize=32)
def unicode_script(names: tuple[str, ...]) -> Script:
    """The classes of one script, or of several that are written as one (Japanese: Han, Hiragana, Katakana).

    Pieces hold at least one letter or mark that is of the script alone. Of Latin script these are the letters
    outside ASCII: ASCII letters only stand beside them, so no text in ASCII can change its ids.

    Raises:
        RecipeError: Unicode has no such script.
    """
    for name in names:
        _check_name(name)
    own = "".join(rf"\p{{Script={name}}}" for name in names)
    extended = "".join(rf"\p{{Script_Extensions={name}}}" for name in names)
    marks = _characters(rf"[[{own}]&&\p{{M}}]")
    shared = _characters(rf"[[[{extended}]&&[\p{{M}}\p{{Lm}}]]--[{own}]]")
    if names[0] in {"Latin", "Cyrillic", "Greek"}:
        shared = f"{shared}{_COMMON_MARKS}"
    if _JOINING & {*names} or _has_virama(marks):
        shared = f"{shared}{_JOINERS}"
    if "Latin" in names:
        shared = f"A-Za-z{shared}"
    return Script(
        letters=_characters(rf"[[{own}]&&\p{{L}}]"),
        marks=marks,
        digits=_characters(rf"[[{own}]&&\p{{Nd}}]"),
        punctuation=_characters(rf"[[{own}]&&[\p{{P}}\p{{S}}]]") + _block_symbols(names),
        shared=shared,
        max_piece_characters=MAX_UNSPACED_PIECE if UNSPACED & {*names} else 0,
    )


def direction_of(names: Sequence[str]) -> Literal["ltr", "rtl"]:
    """In which direction a script's letters run.

    Raises:
        RecipeError: Unicode has no such script, or it has no letters.
    """
    _check_name(names[0])
    found = regex.search(rf"[\p{{Script={names[0]}}}&&\p{{L}}]", _ALL, regex.V1)
    if found is None:
        raise RecipeError(
            f"the Unicode script {names[0]!r} has no letters; give one that words are written in"
        )
    return "rtl" if unicodedata.bidirectional(found.group()) in _RTL else "ltr"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]+", name):
        raise RecipeError(f"no Unicode script {name!r}; give its name, e.g. Georgian")
    try:
        regex.compile(rf"\p{{Script={name}}}")
    except regex.error:
        known = ("Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek",
                 "Han", "Hangul", "Hebrew", "Khmer", "Latin", "Myanmar", "Tamil", "Thai")  # fmt: skip
        hint = nearest(name, known)
        raise RecipeError(f"no Unicode script {name!r}{hint}; give its name, e.g. Georgian") from None


def _has_virama(marks: str) -> bool:
    """Whether a mark of combining class 9 is among them: then ZWJ and ZWNJ choose a letter's form."""
    return any(unicodedata.combining(one) == 9 for one in characters_in(marks))


def characters_in(ranges: str) -> Sequence[str]:
    """Each character outside ASCII of a class that is given as the inside of brackets."""
    found: list[str] = re.findall(f"[{ranges}]", _ALL) if ranges else []
    return found


def _block_symbols(names: Sequence[str]) -> str:
    """Signs of the script's own block that Unicode calls common (the baht sign, the Arabic comma)."""
    found = ""
    for name in names:
        if name in {"Latin", "Greek", "Han"}:
            continue
        try:
            pattern = rf"[[\p{{Block={name}}}&&\p{{Script=Common}}]&&[\p{{P}}\p{{S}}]]"
            found += _characters(rf"[{pattern}--[{_DANDAS}]]")
        except regex.error:  # no block of that name
            continue
    return found


def _characters(pattern: str) -> str:
    """All characters of a class, as ranges for the inside of brackets."""
    return ranges_of(regex.findall(pattern, _ALL, regex.V1))


def ranges_of(characters: Iterable[str]) -> str:
    """Characters as ranges for the inside of brackets."""
    codes = sorted(map(ord, characters))
    ranges: list[tuple[int, int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in ranges)

"""The script of a language: classes of characters, and the patterns that follow from them.

The rule of what a new vocabulary piece may be does two jobs. It keeps pieces inside words, and it makes an
expansion provably harmless to text in other scripts: each piece holds a character of this script (or its
joiner), so its bytes cannot occur in text that has none, and no new merge can fire there.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Script:
    """Classes of characters, each as the inside of a regular expression's brackets; "" where there are none.

    letters: letters of ordinary words. marks: combining marks. digits: its own digits. punctuation: its own.
    rare_letters: letters of the script that other languages and quotations use; pieces may hold them.
    joiner: the invisible character that holds the parts of a word together (ZWNJ), or "".
    shared: characters of words that other scripts use too (ASCII letters of a Latin alphabet, joiners, common
    marks): they stand in pieces beside a character of this script, never alone.
    max_piece_characters: of a piece, in scripts that put no spaces between words; 0 sets no bound.
    """

    letters: str
    marks: str = ""
    digits: str = ""
    punctuation: str = ""
    rare_letters: str = ""
    joiner: str = ""
    shared: str = ""
    max_piece_characters: int = 0

    @property
    def own_characters(self) -> str:
        """All letters and marks that no other script has."""
        return f"{self.letters}{self.rare_letters}{self.marks}"

    @property
    def word_characters(self) -> str:
        """All characters that words are made of, without the joiner."""
        return f"{self.own_characters}{self.shared}"

    @property
    def is_spaced(self) -> bool:
        """Whether words stand apart."""
        return self.max_piece_characters == 0

    @cached_property
    def character(self) -> re.Pattern[str]:
        """Any one character of the script: what text in other scripts does not hold."""
        return re.compile(f"[{self.own_characters}{self.digits}{self.punctuation}{self.joiner}]")

    @cached_property
    def word_character(self) -> re.Pattern[str]:
        """Any one character that words are made of."""
        return re.compile(f"[{self.word_characters}]")

    @cached_property
    def word(self) -> re.Pattern[str]:
        """A word, joiners included."""
        return re.compile(f"[{self.letters}{self.marks}{self.shared}{self.joiner}]+")

    @cached_property
    def joined_word(self) -> re.Pattern[str]:
        """A word of several parts held together by the joiner; matches nothing in a script without one."""
        if not self.joiner:
            return re.compile(r"(?!)")
        return re.compile(f"[{self.letters}]+(?:{self.joiner}[{self.letters}]+)+")

    @cached_property
    def unit(self) -> re.Pattern[str]:
        """How a run without inner space falls into units; a piece never reaches over the border of two."""
        word, joiner = self.word_characters, self.joiner
        kinds = [f" ?[{word}{joiner}]+"]
        if self.digits:
            kinds.append(f" ?[{self.digits}]")
        kinds += [f" ?{self._symbols}", rf" ?(?:(?![{word}{self.digits}])[\w])+"]
        return re.compile("|".join(kinds))

    def is_piece(self, text: str) -> bool:
        """Whether `text` is part of one word, one digit, or punctuation with a mark of this script in it.

        One leading space marks a word's start. A joiner never stands right after it, where normalised text
        has none.
        """
        return self._piece.fullmatch(text) is not None

    @cached_property
    def _piece(self) -> re.Pattern[str]:
        word, joiner = self.word_characters, self.joiner
        own = f"(?=.*[{self.own_characters}])" if self.shared else ""
        most = f"{{0,{self.max_piece_characters - 1}}}" if self.max_piece_characters else "*"
        kinds = [f" ?{own}[{word}][{word}{joiner}]{most}"]
        if joiner:
            kinds += [joiner, f"{joiner}{own}[{word}][{word}{joiner}]{most}"]
        if self.digits:
            kinds.append(f" ?[{self.digits}]")
        if self.punctuation:
            kinds.append(rf" ?(?=.*[{self.punctuation}]){self._symbols}")
        return re.compile("|".join(kinds))

    @property
    def _symbols(self) -> str:
        r"""A run of what is no word character and no space (Python's \\w has no marks and no joiner)."""
        excluded = f"{self.marks}{self.joiner}{self.shared}"
        return rf"(?:(?![{excluded}])[^\w\s])+" if excluded else r"[^\w\s]+"

    def is_part_of_character(self, token_bytes: bytes) -> bool:
        """Whether bytes begin a character of this script, and can begin none of another.

        Byte-level vocabularies need such tokens for a character of three bytes that they lack. One byte alone
        is in every vocabulary.
        """
        head = token_bytes.lstrip(b" ")
        if len(token_bytes) - len(head) > 1 or len(head) < 2:
            return False
        known = [one for one in map(chr, _codes_of(head)) if unicodedata.category(one) != "Cn"]
        return bool(known) and all(self.character.match(one) for one in known)


def script_ratio(text: str, script: Script) -> float | None:
    """The part of a text's letters that are of a script; None for a text without letters."""
    total = sum(map(str.isalpha, text))
    own = sum(map(str.isalpha, script.word_character.findall(text)))
    return own / total if total else None


def _codes_of(head: bytes) -> range:
    """The code points whose UTF-8 begins with these bytes; none where they are no true beginning of one."""
    length = 2 if head[0] < 0xE0 else 3 if head[0] < 0xF0 else 4
    if not 0xC2 <= head[0] < 0xF5 or len(head) >= length or any(not 0x80 <= b < 0xC0 for b in head[1:]):
        return range(0)
    missing = length - len(head)
    try:
        low = ord((head + b"\x80" * missing).decode("utf-8"))
        high = ord((head + b"\xbf" * missing).decode("utf-8"))
    except UnicodeDecodeError:  # a surrogate, or a longer writing of a lower code
        return range(0)
    return range(low, high + 1)

"""The script of a language: classes of characters, and the patterns that follow from them.

The rule of what a new vocabulary piece may be does two jobs. It keeps pieces inside words, and it makes an
expansion provably harmless to text in other scripts: each piece holds a character of this script (or its
joiner), so its bytes cannot occur in text that has none, and no new merge can fire there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Script:
    """Classes of characters, each as the inside of a regular expression's brackets; "" where there are none.

    letters: letters of ordinary words. marks: combining marks. digits: its own digits. punctuation: its own.
    rare_letters: letters of the script that other languages and quotations use; pieces may hold them.
    joiner: the invisible character that holds the parts of a word together (ZWNJ), or "".
    """

    letters: str
    marks: str = ""
    digits: str = ""
    punctuation: str = ""
    rare_letters: str = ""
    joiner: str = ""

    @property
    def word_characters(self) -> str:
        """All letters and marks of the script."""
        return f"{self.letters}{self.rare_letters}{self.marks}"

    @cached_property
    def character(self) -> re.Pattern[str]:
        """Any one character of the script: what text in other scripts does not hold."""
        return re.compile(f"[{self.word_characters}{self.digits}{self.punctuation}{self.joiner}]")

    @cached_property
    def word(self) -> re.Pattern[str]:
        """A word, joiners included."""
        return re.compile(f"[{self.letters}{self.marks}{self.joiner}]+")

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
        kinds = [f" ?[{word}][{word}{joiner}]*"]
        if joiner:
            kinds += [joiner, f"{joiner}[{word}][{word}{joiner}]*"]
        if self.digits:
            kinds.append(f" ?[{self.digits}]")
        if self.punctuation:
            kinds.append(rf" ?(?=.*[{self.punctuation}]){self._symbols}")
        return re.compile("|".join(kinds))

    @property
    def _symbols(self) -> str:
        r"""A run of what is no word character and no space (Python's \\w has no marks and no joiner)."""
        excluded = f"{self.marks}{self.joiner}"
        return rf"(?:(?![{excluded}])[^\w\s])+" if excluded else r"[^\w\s]+"

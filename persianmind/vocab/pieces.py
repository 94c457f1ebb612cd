"""What a new piece may be: part of one Persian word, one Persian digit, or Persian punctuation.

The rule does two jobs. It keeps pieces inside words, and it makes the expansion provably harmless to every
other text: each new piece holds an Arabic-script character or ZWNJ, so its bytes cannot occur in text that
has none, and no new merge can fire there.
"""

from __future__ import annotations

import re

from persianmind.language.persian import DIGITS, LETTERS, MARKS, ZWNJ

_WORD_PART = f"{LETTERS}\u0750-\u077f\u08a0-\u08c9{MARKS}"
_PUNCTUATION = "\u060c\u060d\u061b\u061e\u061f\u066a-\u066d\u06d4\ufd3e\ufd3f"
PERSIAN_CHARACTER = re.compile(f"[{_WORD_PART}{DIGITS}{_PUNCTUATION}{ZWNJ}]")

# One optional leading space; then letters, marks and ZWNJ (never ZWNJ right after the space, where the
# normaliser leaves none), or one digit, or punctuation of which at least one character is Persian.
_PIECE = re.compile(
    f"{ZWNJ}"
    f"| ?[{_WORD_PART}][{_WORD_PART}{ZWNJ}]*|{ZWNJ}[{_WORD_PART}][{_WORD_PART}{ZWNJ}]*"
    f"| ?[{DIGITS}]"
    rf"| ?(?=.*[{_PUNCTUATION}])(?:(?![{MARKS}{ZWNJ}])[^\w\s])+"
)

# How a run without inner space falls into units; a piece never reaches over the border of two units.
UNIT = re.compile(
    f" ?[{_WORD_PART}{ZWNJ}]+"
    f"| ?[{DIGITS}]"
    rf"| ?(?:(?![{MARKS}{ZWNJ}])[^\w\s])+"
    rf"| ?(?:(?![{_WORD_PART}{DIGITS}])[\w])+"
)


def is_valid_piece_text(text: str) -> bool:
    """Whether `text` (a leading space marks a word's start) may be a piece."""
    return _PIECE.fullmatch(text) is not None


def is_valid_piece(surface: bytes) -> bool:
    """`is_valid_piece_text` of UTF-8 bytes; a piece that ends inside a character is not lawful."""
    try:
        return is_valid_piece_text(surface.decode("utf-8"))
    except UnicodeDecodeError:
        return False

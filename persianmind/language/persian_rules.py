"""The rules of the Persian normaliser: one spelling for what looks the same, and not a byte of anything else.

`normalise` is pure and idempotent. Every rule acts on Arabic-script characters, or on invisible characters
and spaces that touch them; bidi marks go from every line that holds an Arabic-script character. English,
code, other scripts and their white space come out byte for byte. docs/normaliser.md lists the rules.

Rules, in the order in which they run:
    R1  letters      U+064A U+0649 -> U+06CC, U+0643 U+06AA -> U+06A9, U+06C1 U+06BE U+06D5 -> U+0647, ...
    R2  forms        U+FB50-FDFB, U+FE70-FEFC (presentation forms) -> their letters; U+FDFA-FDFD are kept
    R3  tatweel      U+0640 is removed
    R4  diacritics   `strip`: U+064B-0652, U+0670, U+0610-061A, U+06D6-06ED (marks) are removed
    R5  digits       `ascii`: U+0660-0669, U+06F0-06F9 -> 0-9
    R6  bidi marks   U+061C U+200E U+200F U+202A-202E U+2066-2069 are removed from Persian and blank lines
    R7  ZWNJ         inside a word: one U+200C, also for U+200B; at a word's edge: none
    R8  composition  NFC of a letter with its marks; U+06CC U+0654 -> U+0626, U+0647 U+0654 -> U+06C0
    R9  spaces       U+00A0 and its kin beside Persian -> U+0020; several between two Persian words -> one
    R10 digits       `persian`: U+0660-0669 -> U+06F0-06F9, and 0-9 where it stands in Persian text
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from persianmind.common.pieces import text_pieces
from persianmind.recipe import Normalise

ZWNJ = "\u200c"

# Character classes, as the inside of a regular expression's brackets.
MARKS = (
    "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u08ca-\u08e1\u08e3-\u08ff"
)
LETTERS = "\u0620-\u064a\u066e-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06fc\u06ff"
DIGITS = "\u0660-\u0669\u06f0-\u06f9"
_FORMS = "\ufb50-\ufdff\ufe70-\ufefc"
# Arabic script without its digits: no rule about invisible characters or spaces may depend on a digit,
# because R10 turns ASCII digits into Persian ones afterwards and a second pass would see another text.
PERSIAN = f"\u0600-\u061b\u061d-\u065f\u066a-\u06ef\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff{_FORMS}"
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_ODD_SPACE = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

_LETTERS = {
    "\u064a": "\u06cc",  # Arabic yeh -> Persian yeh
    "\u0649": "\u06cc",  # alef maksura, typed for the final yeh
    "\u0643": "\u06a9",  # Arabic kaf -> keheh
    "\u06aa": "\u06a9",  # swash kaf
    "\u06c1": "\u0647",  # heh goal
    "\u06be": "\u0647",  # heh doachashmee
    "\u06d5": "\u0647",  # ae
    "\u06c2": "\u06c0",  # heh goal with hamza above -> heh with yeh above
    "\u0640": "",  # tatweel
}
_KEPT_FORMS = range(0xFDFA, 0xFDFE)  # two salutations, the rial sign, the basmala: symbols, not spellings
_DIACRITICS = re.compile(
    "[\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]+"
)
_TO_ASCII = {ord(first) + i: ord("0") + i for first in "\u0660\u06f0" for i in range(10)}
_TO_PERSIAN = {ord(first) + i: 0x06F0 + i for first in "\u0660" for i in range(10)}
_ASCII_TO_PERSIAN = {ord("0") + i: 0x06F0 + i for i in range(10)}


def _form_table() -> dict[int, str]:
    """Presentation forms -> letters, through compatibility decomposition and the letter rules."""
    table = {}
    for code in [*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD)]:
        plain = unicodedata.normalize("NFKC", chr(code))
        if plain == chr(code) or code in _KEPT_FORMS:
            continue
        # Spacing forms of marks decompose to a space or a tatweel and the mark: the mark is meant.
        plain = plain.strip(" ") if len(plain.strip(" ")) < 4 else plain
        table[code] = "".join(_LETTERS.get(character, character) for character in plain)
    return table


_FORM_TABLE = _form_table()
_BIDI_MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# One scan decides whether the rules for what is rare in clean text have to look at all.
_ANY_RARE = re.compile(f"[{_FORMS}{_BIDI_MARKS}{_ODD_SPACE}]")
_ANY_PERSIAN = re.compile(f"[{PERSIAN}{DIGITS}]")
PIECE_CHARACTERS = 1 << 18
# One plain space between two letters: no rule looks across it, so a long text may be cut there.
_PLAIN_SPACE = re.compile(f"(?<=[{LETTERS}]) (?=[{LETTERS}])")
_ANY_MARK = re.compile(f"[{MARKS}]")
_BIDI = re.compile(f"[{_BIDI_MARKS}]")
_VISIBLE = re.compile(rf"[^\s{_BIDI_MARKS}{_INVISIBLE}]")
_INVISIBLE_RUN = re.compile(f"[{_INVISIBLE}]+")
# The ordinary case, one ZWNJ between two Persian letters, is passed over without a call.
_SUSPECT = re.compile(f"[{_INVISIBLE}](?!(?<=[{LETTERS}]{ZWNJ})[{LETTERS}])")
_PERSIAN_CHARACTER = re.compile(f"[{PERSIAN}]")
_WORD_CHARACTER = re.compile(rf"[\w{MARKS}]")
_MARKED = re.compile(f"[{PERSIAN}]?[{MARKS}]+")
_HAMZA_ON_YEH = re.compile("\u06cc([\u064b-\u0652\u0670]*)\u0654")
_HAMZA_ON_HEH = re.compile("\u0647([\u064b-\u0652\u0670]*)\u0654")
_SPACES = f"[ {_ODD_SPACE}]+"
_SPACES_BESIDE_PERSIAN = re.compile(f"(?<=[{PERSIAN}]){_SPACES}|{_SPACES}(?=[{PERSIAN}])")
_MANY_SPACES = re.compile(f"  +(?=[{PERSIAN}])")
_GLUED = "A-Za-z0-9_.,:/\\\\@#%&=+*<>~^$-"  # an ASCII number touching one of these is code, a version, a path
_ASCII_NUMBER = re.compile(
    rf"(?:(?<=[{LETTERS}] )|(?<=[{LETTERS}{MARKS}]))[0-9]+(?![{_GLUED}])"
    rf"|(?<![{_GLUED}])[0-9]+(?= ?[{LETTERS}])"
)


def normalise(text: str, options: Normalise = Normalise()) -> str:
    """Spells Persian in one way; non-Persian text is returned as it is.

    Pure and idempotent: normalise(normalise(x, o), o) == normalise(x, o).

    Args:
        text: any text.
        options: which digits to write, and whether diacritics are kept.

    Returns:
        The text, NFC in its Arabic-script parts.
    """
    if text.isascii() or not _ANY_PERSIAN.search(text):
        return text
    if len(text) > PIECE_CHARACTERS:
        pieces = text_pieces(text, PIECE_CHARACTERS, before=_PLAIN_SPACE)
        return "".join(_normalise_piece(piece, options) for piece in pieces)
    return _normalise_piece(text, options)


def _normalise_piece(text: str, options: Normalise) -> str:
    if rare := _ANY_RARE.search(text):
        text = text.translate(_FORM_TABLE)
    for wrong, right in _LETTERS.items():  # a replace that finds nothing costs one memchr
        text = text.replace(wrong, right)
    if options.diacritics == "strip":
        text = _DIACRITICS.sub("", text)
    if options.digits == "ascii":
        text = text.translate(_TO_ASCII)
    if rare and _BIDI.search(text):
        text = _in_persian_lines(text, lambda line: _BIDI.sub("", line))
    if _SUSPECT.search(text):
        text = _in_persian_lines(text, lambda line: _INVISIBLE_RUN.sub(_settle_invisible, line))
    if _ANY_MARK.search(text):
        text = _compose(text)
    if rare:
        text = _SPACES_BESIDE_PERSIAN.sub(_plain_spaces, text)
    if "  " in text:
        text = _MANY_SPACES.sub(_one_space, text)
    if options.digits == "persian":
        text = _ASCII_NUMBER.sub(_persian_number, text.translate(_TO_PERSIAN))
    return text


def _in_persian_lines(text: str, rule: Callable[[str], str]) -> str:
    """Applies a rule to the lines that hold Persian, and to those that hold nothing visible."""
    return "\n".join(
        rule(line) if _ANY_PERSIAN.search(line) or not _VISIBLE.search(line) else line
        for line in text.split("\n")
    )


def _settle_invisible(match: re.Match[str]) -> str:
    """R7 for one maximal run of invisible characters of a Persian line, by its two visible neighbours."""
    run, line = match.group(), match.string
    before = line[match.start() - 1] if match.start() else " "
    after = line[match.end()] if match.end() < len(line) else " "
    joins = "\u200d" in run
    if (before.isspace() or after.isspace()) and not joins:
        return ""
    if not (_PERSIAN_CHARACTER.match(before) or _PERSIAN_CHARACTER.match(after)):
        return run  # an emoji sequence, another script: not ours
    if _WORD_CHARACTER.match(before) and _WORD_CHARACTER.match(after):
        return ZWNJ if ZWNJ in run or "\u200b" in run else ""
    return "\u200d" if joins else ""  # a joiner at the edge shapes an abbreviation's last letter


def _compose(text: str) -> str:
    if not unicodedata.is_normalized("NFC", text):
        text = _MARKED.sub(lambda match: unicodedata.normalize("NFC", match.group()), text)
    if "\u0654" in text:
        text = _HAMZA_ON_YEH.sub("\u0626\\1", text)
        text = _HAMZA_ON_HEH.sub("\u06c0\\1", text)
    return text


def _plain_spaces(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _one_space(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1] if match.start() else ""
    return " " if _PERSIAN_CHARACTER.match(before) else match.group()


def _persian_number(match: re.Match[str]) -> str:
    return match.group().translate(_ASCII_TO_PERSIAN)

"""Spelling rules of languages in Arabic script: one spelling for what looks the same, and not a byte of
anything else.

A speller is pure and idempotent. Every rule acts on Arabic-script characters, or on invisible characters and
spaces that touch them; bidi marks go from every line that holds an Arabic-script character. English, code,
other scripts and their white space come out byte for byte. docs/normaliser.md lists the rules.

Rules, in the order in which they run, by the names that switch them off:
    letters      a letter typed for another that looks the same, by the language's own table
    forms        U+FB50-FDFB, U+FE70-FEFC (presentation forms) -> their letters; U+FDFA-FDFD are kept
    tatweel      U+0640 is removed
    diacritics   `strip`: U+064B-0652, U+0670, U+0610-061A, U+06D6-06ED (marks) are removed
    digits       `ascii`: U+0660-0669, U+06F0-06F9 -> 0-9
    half_spaces  U+200E U+200F U+00AC between two letters, typed for ZWNJ on old keyboards -> U+200C
    bidi         U+061C U+200E U+200F U+202A-202E U+2066-2069 are removed from the script's and blank lines
    zwnj         inside a word: one U+200C, also for U+200B; at a word's edge: none
    composition  NFC of a letter with its marks; U+06CC U+0654 -> U+0626
    spaces       U+00A0 and its kin beside the script -> U+0020
    space_runs   several spaces between two words of the script -> one
    digits       `native`: U+0660-0669 -> the language's own, and 0-9 where it stands in the script's text
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache, cached_property

from persianmind.common.pieces import text_pieces
from persianmind.language.script import Script
from persianmind.recipe import Normalise

ZWNJ = "\u200c"

# Character classes, as the inside of a regular expression's brackets.
MARKS = (
    "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u08ca-\u08e1\u08e3-\u08ff"
)
LETTERS = "\u0620-\u064a\u066e-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06fc\u06ff"
DIGITS = "\u0660-\u0669\u06f0-\u06f9"
# Word characters, white space, ZWNJ/ZWJ and the Arabic marks are no symbols (Python's \w has no marks).
SYMBOL = re.compile(r"[^\w\s\u200c\u200d\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]")
ARABIC_SCRIPT = Script(
    letters=LETTERS,
    rare_letters="\u0750-\u077f\u08a0-\u08c9",
    marks=MARKS,
    digits=DIGITS,
    punctuation="\u060c\u060d\u061b\u061e\u061f\u066a-\u066d\u06d4\ufd3e\ufd3f",
    joiner=ZWNJ,
)
_FORMS = "\ufb50-\ufdff\ufe70-\ufefc"
# Arabic script without its digits: no rule about invisible characters or spaces may depend on a digit,
# because the last rule turns ASCII digits into native ones and a second pass would see another text.
ARABIC = f"\u0600-\u061b\u061d-\u065f\u066a-\u06ef\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff{_FORMS}"
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_ODD_SPACE = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_KEPT_FORMS = range(0xFDFA, 0xFDFE)  # two salutations, the rial sign, the basmala: symbols, not spellings
_DIACRITICS = re.compile(
    "[\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]+"
)
_TO_ASCII = {ord(first) + i: ord("0") + i for first in "\u0660\u06f0" for i in range(10)}
_BIDI_MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_HALF_SPACES = "\u200e\u200f\u00ac"
# One scan decides whether the rules for what is rare in clean text have to look at all.
_ANY_RARE = re.compile(f"[{_FORMS}{_BIDI_MARKS}{_ODD_SPACE}\u00ac]")
_ANY_ARABIC = re.compile(f"[{ARABIC}{DIGITS}]")
PIECE_CHARACTERS = 1 << 18
# One plain space between two letters: no rule looks across it, so a long text may be cut there.
_PLAIN_SPACE = re.compile(f"(?<=[{LETTERS}]) (?=[{LETTERS}])")
_ANY_MARK = re.compile(f"[{MARKS}]")
_BIDI = re.compile(f"[{_BIDI_MARKS}]")
_HIDDEN = f"{_BIDI_MARKS}{_INVISIBLE}\u00ac"
_HALF_SPACE = re.compile(f"(?<=[{LETTERS}{MARKS}])[{_HIDDEN}]*?[{_HALF_SPACES}][{_HIDDEN}]*(?=[{LETTERS}])")
_VISIBLE = re.compile(rf"[^\s{_BIDI_MARKS}{_INVISIBLE}]")
_INVISIBLE_RUN = re.compile(f"[{_INVISIBLE}]+")
# The ordinary case, one ZWNJ between two letters, is passed over without a call.
_SUSPECT = re.compile(f"[{_INVISIBLE}](?!(?<=[{LETTERS}]{ZWNJ})[{LETTERS}])")
_CHARACTER = re.compile(f"[{ARABIC}]")
_WORD_CHARACTER = re.compile(rf"[\w{MARKS}]")
_MARKED = re.compile(f"[{ARABIC}]?[{MARKS}]+")
_HAMZA_ON_YEH = re.compile("\u06cc([\u064b-\u0652\u0670]*)\u0654")
_SPACES = f"[ {_ODD_SPACE}]+"
_SPACES_BESIDE = re.compile(f"(?<=[{ARABIC}]){_SPACES}|{_SPACES}(?=[{ARABIC}])")
_MANY_SPACES = re.compile(f"  +(?=[{ARABIC}])")
_GLUED = "A-Za-z0-9_.,:/\\\\@#%&=+*<>~^$-"  # an ASCII number touching one of these is code, a version, a path
_ASCII_NUMBER = re.compile(
    rf"(?:(?<=[{LETTERS}] )|(?<=[{LETTERS}{MARKS}]))[0-9]+(?![{_GLUED}])"
    rf"|(?<![{_GLUED}])[0-9]+(?= ?[{LETTERS}])"
)
RULES = {
    "letters": "letters typed for others that look the same",
    "forms": "presentation forms to their letters",
    "tatweel": "U+0640 removed",
    "half_spaces": "U+200E, U+200F and U+00AC between letters to ZWNJ",
    "bidi": "marks of writing direction removed",
    "zwnj": "one ZWNJ inside words, none at their edges",
    "composition": "NFC of letters with marks",
    "spaces": "no-break and other spaces beside the script to U+0020",
    "space_runs": "several spaces between two words to one",
}


class ArabicScriptSpeller:
    """The normaliser of one language in Arabic script.

    letters: what is typed -> what is meant. first_digit: code of the language's own 0. half_spaces: whether
    words have parts that ZWNJ holds together.
    """

    def __init__(self, letters: Mapping[str, str], *, first_digit: int, half_spaces: bool) -> None:
        self._letters = letters
        self._to_native = {ord(zero) + i: first_digit + i for zero in "\u0660\u06f0" for i in range(10)}
        self._ascii_to_native = {ord("0") + i: first_digit + i for i in range(10)}
        lacking = {"half_spaces": half_spaces, "letters": bool(letters)}
        self.rules = {name: told for name, told in RULES.items() if lacking.get(name, True)}

    def __call__(self, text: str, options: Normalise = Normalise()) -> str:
        """Spells the language in one way; text without Arabic script is returned as it is.

        Pure and idempotent: spell(spell(x, o), o) == spell(x, o).

        Args:
            text: any text.
            options: which digits to write, whether diacritics are kept, which rules are off.

        Returns:
            The text, NFC in its Arabic-script parts.
        """
        if not options.enabled or text.isascii() or not _ANY_ARABIC.search(text):
            return text
        if len(text) > PIECE_CHARACTERS:
            pieces = text_pieces(text, PIECE_CHARACTERS, before=_PLAIN_SPACE)
            return "".join(self._spell(piece, options) for piece in pieces)
        return self._spell(text, options)

    def _spell(self, text: str, options: Normalise) -> str:
        rare = _ANY_RARE.search(text)
        text = self._with_letters(text, options, rare=rare is not None)
        if options.diacritics == "strip":
            text = _DIACRITICS.sub("", text)
        if options.digits == "ascii":
            text = text.translate(_TO_ASCII)
        text = self._without_hidden(text, options, rare=rare is not None)
        if options.has("composition") and _ANY_MARK.search(text):
            text = self._compose(text)
        if rare and options.has("spaces"):
            text = _SPACES_BESIDE.sub(_plain_spaces, text)
        if "  " in text and options.has("space_runs"):
            text = _MANY_SPACES.sub(_one_space, text)
        if options.digits == "native":
            text = _ASCII_NUMBER.sub(self._native_number, text.translate(self._to_native))
        return text

    def _with_letters(self, text: str, options: Normalise, *, rare: bool) -> str:
        if rare and options.has("forms"):
            text = text.translate(_form_table())
        if options.has("tatweel"):
            text = text.replace("\u0640", "")
        if options.has("letters"):
            for wrong, right in self._letters.items():  # a replace that finds nothing costs one memchr
                text = text.replace(wrong, right)
        return text

    def _without_hidden(self, text: str, options: Normalise, *, rare: bool) -> str:
        """Half-spaces, marks of direction, and what else cannot be seen."""
        if rare and "half_spaces" in self.rules and options.has("half_spaces"):
            text = _HALF_SPACE.sub(ZWNJ, text)
        if rare and options.has("bidi") and _BIDI.search(text):
            text = _in_arabic_lines(text, lambda line: _BIDI.sub("", line))
        if options.has("zwnj") and _SUSPECT.search(text):
            text = _in_arabic_lines(text, lambda line: _INVISIBLE_RUN.sub(_settle_invisible, line))
        return text

    def _compose(self, text: str) -> str:
        if not unicodedata.is_normalized("NFC", text):
            text = _MARKED.sub(lambda match: unicodedata.normalize("NFC", match.group()), text)
        if "\u0654" in text and self._writes_farsi_yeh:
            text = _HAMZA_ON_YEH.sub("\u0626\\1", text)
        return text

    @cached_property
    def _writes_farsi_yeh(self) -> bool:
        return "\u06cc" in self._letters.values()

    def _native_number(self, match: re.Match[str]) -> str:
        return match.group().translate(self._ascii_to_native)


@cache
def _form_table() -> dict[int, str]:
    """Presentation forms -> letters, by compatibility decomposition."""
    table = {}
    for code in [*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD)]:
        plain = unicodedata.normalize("NFKC", chr(code))
        if plain == chr(code) or code in _KEPT_FORMS:
            continue
        # Spacing forms of marks decompose to a space or a tatweel and the mark: the mark is meant.
        plain = plain.strip(" ") if len(plain.strip(" ")) < 4 else plain
        table[code] = plain.replace("\u0640", "")
    return table


def _in_arabic_lines(text: str, rule: Callable[[str], str]) -> str:
    """Applies a rule to the lines that hold the script, and to those that hold nothing visible."""
    return "\n".join(
        rule(line) if _ANY_ARABIC.search(line) or not _VISIBLE.search(line) else line
        for line in text.split("\n")
    )


def _settle_invisible(match: re.Match[str]) -> str:
    """The rule `zwnj` for one maximal run of invisible characters, by its two visible neighbours."""
    run, line = match.group(), match.string
    before = line[match.start() - 1] if match.start() else " "
    after = line[match.end()] if match.end() < len(line) else " "
    joins = "\u200d" in run
    if (before.isspace() or after.isspace()) and not joins:
        return ""
    if not (_CHARACTER.match(before) or _CHARACTER.match(after)):
        return run  # an emoji sequence, another script: not ours
    if _WORD_CHARACTER.match(before) and _WORD_CHARACTER.match(after):
        return ZWNJ if ZWNJ in run or "\u200b" in run else ""
    return "\u200d" if joins else ""  # a joiner at the edge shapes an abbreviation's last letter


def _plain_spaces(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _one_space(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1] if match.start() else ""
    return " " if _CHARACTER.match(before) else match.group()

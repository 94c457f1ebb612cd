"""The profile of Persian."""

from __future__ import annotations

import re

from persianmind.language.persian_rules import DIGITS, LETTERS, MARKS, ZWNJ, normalise
from persianmind.language.persian_typing import TYPING
from persianmind.language.profile import (
    GateProbes,
    LanguageProfile,
    MojibakePattern,
    PromptTemplate,
    QualityPatterns,
)
from persianmind.language.script import Script

__all__ = ["PROFILE", "normalise"]

_SCRIPT = Script(
    letters=LETTERS,
    rare_letters="\u0750-\u077f\u08a0-\u08c9",
    marks=MARKS,
    digits=DIGITS,
    punctuation="\u060c\u060d\u061b\u061e\u061f\u066a-\u066d\u06d4\ufd3e\ufd3f",
    joiner=ZWNJ,
)

_PROBES = GateProbes(
    joined_words=("می‌روم", "کتاب‌ها", "نمی‌خواسته‌ام", "خانه‌هایشان", "بین‌المللی", "۲۰‌ساله", "API‌های"),
    spaces=tuple(f"{' ' * n}سلام{' ' * n}دنیا{' ' * n}" for n in (1, 2, 3, 7, 17, 40)),
)

# The form of the paper.
_PROMPT = PromptTemplate(
    context="This is a conversation with PersianMind, an assistant that answers in Persian and in English.",
    user_turn="You: ",
    assistant_turn="PersianMind: ",
)

# UTF-8 read as Latin-1 or CP1252: a lead byte of the Arabic block (D8-DB), then a continuation byte.
_AS_LATIN = MojibakePattern("ØÙÚÛ", re.compile(r"[ØÙÚÛ][\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]"))
# UTF-8 read as CP1256: the same lead bytes are tah, zah, ain and ghain there. Quotation marks and dashes,
# which follow these letters in good text, are left out; no frequent letter needs them.
_AS_CP1256 = MojibakePattern(
    "طظعغ", re.compile(r"[طظعغ][\x80-\xaa\xac-\xba\xbc-\xbfŒœˆƒ‚„†‡•…‰‹›€™ٹچژڈگکڑںھہ]")
)
_QUALITY = QualityPatterns(
    # Word characters, white space, ZWNJ/ZWJ and the Arabic marks are no symbols (Python's \w has no marks).
    symbol=re.compile(r"[^\w\s\u200c\u200d\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]"),
    mojibake=(_AS_LATIN, _AS_CP1256),
    # Mazanderani is so near to Persian that Persian stays in front; its own score is what tells it.
    siblings=("mzn", "glk"),
)

PROFILE = LanguageProfile(
    name="Persian",
    codes=("fa",),
    direction="rtl",
    script=_SCRIPT,
    normalise=normalise,
    is_valid_piece=_SCRIPT.is_piece,
    probes=_PROBES,
    prompt=_PROMPT,
    quality=_QUALITY,
    typing=TYPING,
)

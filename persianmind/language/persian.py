"""The profile of Persian."""

from __future__ import annotations

from persianmind.language.arabic_script import ARABIC_SCRIPT, SYMBOL, ArabicScriptSpeller
from persianmind.language.mojibake import ARABIC_AS_CP1256, ARABIC_AS_LATIN
from persianmind.language.persian_phrases import PHRASES
from persianmind.language.persian_typing import TYPING
from persianmind.language.profile import GateProbes, LanguageProfile, PromptTemplate, QualityPatterns

__all__ = ["PROFILE", "normalise"]

_LETTERS = {
    "\u064a": "\u06cc",  # Arabic yeh -> Persian yeh
    "\u0649": "\u06cc",  # alef maksura, typed for the final yeh
    "\u0643": "\u06a9",  # Arabic kaf -> keheh
    "\u06aa": "\u06a9",  # swash kaf
    "\u06c1": "\u0647",  # heh goal
    "\u06be": "\u0647",  # heh doachashmee
    "\u06d5": "\u0647",  # ae
    # Ezafe on heh is heh + hamza above in 99 of 100 texts; the one code is not canonically equal to it.
    "\u06c0": "\u0647\u0654",
    "\u06c2": "\u0647\u0654",
}
normalise = ArabicScriptSpeller(_LETTERS, first_digit=0x06F0, half_spaces=True)

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

_QUALITY = QualityPatterns(
    symbol=SYMBOL,
    mojibake=(ARABIC_AS_LATIN, ARABIC_AS_CP1256),
    # Mazanderani is so near to Persian that Persian stays in front; its own score is what tells it.
    siblings=("mzn", "glk"),
)

PROFILE = LanguageProfile(
    name="Persian",
    code="fa",
    direction="rtl",
    script=ARABIC_SCRIPT,
    rules=normalise.rules,
    normalise=normalise,
    probes=_PROBES,
    prompt=_PROMPT,
    quality=_QUALITY,
    phrases=PHRASES,
    digits=True,
    typing=TYPING,
)

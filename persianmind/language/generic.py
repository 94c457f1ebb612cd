"""The profile of any language whose script Unicode knows: NFC is its one rule."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from persianmind.language.codes import Language
from persianmind.language.mojibake import ARABIC_AS_CP1256, ARABIC_AS_LATIN, latin_mojibake
from persianmind.language.profile import (
    GateProbes,
    LanguageProfile,
    MojibakePattern,
    Phrases,
    PromptTemplate,
    QualityPatterns,
)
from persianmind.language.script import Script
from persianmind.language.unicode_scripts import characters_in, direction_of, unicode_script
from persianmind.recipe import Normalise

NFC_RULE = {"nfc": "NFC"}
# With mark and joiners: no symbols, whatever the script.
_SYMBOL = re.compile(r"[^\w\s\u200c\u200d]")
_MAX_ROUNDS = 8
_ENGLISH = Phrases(
    translate=(
        "Translate the following text from {source} into {target}:",
        "Translate this text into {target}:",
        "What is this in {target}?",
        "Give the {target} translation of:",
    ),
    answer_by_letter="Answer with the letter of the right option alone.",
)


@dataclass(frozen=True)
class GenericSpeller:
    """NFC, then rules of replacements. Pure and idempotent.

    replace: by the rule's name, what is written -> what is meant.
    """

    replace: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __call__(self, text: str, options: Normalise = Normalise()) -> str:
        """The text with one spelling; what no rule names comes out as its NFC."""
        if not options.enabled:
            return text
        for _ in range(_MAX_ROUNDS if self.replace else 1):
            spelled = self._once(text, options)
            if spelled == text:
                break
            text = spelled
        return text

    def _once(self, text: str, options: Normalise) -> str:
        if options.has("nfc") and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        for name, pairs in self.replace.items():
            if options.has(name):
                for wrong, right in pairs.items():
                    text = text.replace(wrong, right)
        return text


@lru_cache(maxsize=64)
def generic_profile(code: str, language: Language) -> LanguageProfile:
    """The profile of a language that has none of its own.

    Raises:
        RecipeError: Unicode has no script of that name.
    """
    script = unicode_script(language.scripts)
    return LanguageProfile(
        name=language.name,
        code=code,
        direction=direction_of(language.scripts),
        script=script,
        rules=NFC_RULE,
        normalise=GenericSpeller(),
        probes=GateProbes(spaces=probe_spaces(script)),
        prompt=generic_prompt(code, language.name),
        quality=QualityPatterns(_SYMBOL, mojibake_of(language.scripts, script)),
        phrases=_ENGLISH if code == "en" else Phrases(),
    )


def generic_prompt(code: str, name: str) -> PromptTemplate:
    """The form of a conversation in a language that brings none."""
    languages = name if code == "en" else f"{name} and in English"
    return PromptTemplate(
        f"This is a conversation with an assistant that answers in {languages}.", "You: ", "Assistant: "
    )


def probe_spaces(script: Script) -> tuple[str, ...]:
    """Two words of the script's first letters among runs of spaces, and all its letters, marks and digits."""
    letters = characters_in(script.letters)[:6]
    first, second = "".join(letters[:3]), "".join(letters[3:])
    classes = (script.letters, script.marks, script.digits, script.punctuation)
    every = "".join(unicodedata.normalize("NFC", "".join(characters_in(one))) for one in classes)
    runs = (f"{' ' * n}{first}{' ' * n}{second}{' ' * n}" for n in (1, 2, 3, 7, 17, 40))
    return (*runs, unicodedata.normalize("NFC", every))


def mojibake_of(scripts: tuple[str, ...], script: Script) -> tuple[MojibakePattern, ...]:
    """What text of these scripts looks like, read with a wrong code page."""
    return (ARABIC_AS_LATIN, ARABIC_AS_CP1256) if scripts == ("Arabic",) else latin_mojibake(script)

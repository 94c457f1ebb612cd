"""The profile of a language: all that is particular to it, as one object that everything else takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from persianmind.language.script import Script

if TYPE_CHECKING:
    from persianmind.recipe import Normalise


class Normaliser(Protocol):
    """Gives text one spelling. Pure and idempotent; text of other scripts comes out byte for byte."""

    def __call__(self, text: str, options: Normalise = ..., /) -> str: ...


@dataclass(frozen=True)
class PromptTemplate:
    """The form of a conversation.

    context: stands before a conversation that has no system message of its own.
    user_turn, assistant_turn: stand before what each of the two says.
    """

    context: str
    user_turn: str
    assistant_turn: str


@dataclass(frozen=True)
class GateProbes:
    """Text that an expanded tokenizer must give back exactly, whatever the corpus holds.

    joined_words: words with the script's joiner. spaces: words among runs of spaces.
    """

    joined_words: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class MojibakePattern:
    """UTF-8 of this script, read with a wrong code page.

    lead: the characters that its lead bytes become. pair: such a character with a continuation byte's one.
    """

    lead: str
    pair: re.Pattern[str]


@dataclass(frozen=True)
class QualityPatterns:
    """What the filters on text know of a language.

    symbol: one character that is neither word, space nor mark.
    mojibake: the code pages that its text is wrongly read with.
    siblings: codes of near languages whose own score tells them from this one.
    """

    symbol: re.Pattern[str]
    mojibake: tuple[MojibakePattern, ...] = ()
    siblings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LanguageProfile:
    """One language.

    name: as messages have it ("Persian").
    codes: ISO 639 codes it serves, its own first.
    direction: in which its text runs.
    script: its characters and the patterns that follow from them.
    normalise: its spelling rules.
    is_valid_piece: whether a text (a leading space marks a word's start) may be a new vocabulary piece.
    typing: by name, what people make of the same text when they type it.
    """

    name: str
    codes: tuple[str, ...]
    direction: Literal["ltr", "rtl"]
    script: Script
    normalise: Normaliser
    is_valid_piece: Callable[[str], bool]
    probes: GateProbes
    prompt: PromptTemplate
    quality: QualityPatterns
    typing: Mapping[str, Callable[[str], str]] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The language's own code."""
        return self.codes[0]

    def siblings_of(self, code: str) -> tuple[str, ...]:
        """Near languages of the language `code`: those of the profile where it serves the code itself."""
        return self.quality.siblings if code in self.codes else ()

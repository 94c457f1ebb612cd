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

    joined_words: words with the script's joiner. spaces: words among runs of spaces, sentences.
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
class Phrases:
    """What our own tasks say in the language.

    translate: wordings of a translation task; {source} and {target} stand for the two languages' names.
    languages: how it calls languages, by code. answer_by_letter: asks for an option's letter alone.
    option_letters: letters that options are named by in it, in their order.
    questions: what tests ask in it, by the task's name. samples: asked of a model to see how it answers.
    """

    translate: tuple[str, ...] = ()
    languages: Mapping[str, str] = field(default_factory=dict)
    answer_by_letter: str = ""
    option_letters: tuple[str, ...] = ()
    questions: Mapping[str, QuestionWording] = field(default_factory=dict)
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuestionWording:
    """A task put as a question. question: with {first} and {second} for its texts. candidates: in the order
    of the labels."""

    question: str
    candidates: tuple[str, ...]

    def ask(self, first: str, second: str) -> str:
        """The question about two texts."""
        return re.sub(
            r"\{(first|second)\}", lambda m: first if m.group(1) == "first" else second, self.question
        )


@dataclass(frozen=True)
class LanguageProfile:
    """One language.

    name: as messages have it ("Georgian").
    code: its ISO 639 code.
    direction: in which its text runs.
    script: its characters and the patterns that follow from them.
    rules: names of the rules of `normalise`, in the order in which they run, each with a short description.
    normalise: its spelling rules.
    digits: whether `normalise` knows the options `native` and `ascii` for digits, and `strip` for diacritics.
    typing: by name, what people make of the same text when they type it.
    """

    name: str
    code: str
    direction: Literal["ltr", "rtl"]
    script: Script
    rules: Mapping[str, str]
    normalise: Normaliser
    probes: GateProbes
    prompt: PromptTemplate
    quality: QualityPatterns
    phrases: Phrases = Phrases()
    digits: bool = False
    typing: Mapping[str, Callable[[str], str]] = field(default_factory=dict)

    def is_valid_piece(self, text: str) -> bool:
        """Whether a text (a leading space marks a word's start) may be a new vocabulary piece."""
        return self.script.is_piece(text)

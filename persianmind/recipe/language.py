"""A language profile of one's own: what is particular to a language, as a YAML file has it."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from persianmind.recipe.section import Name, Section

_CLASS = re.compile(r"[^\[\]\\^]*")


class ProfilePrompt(Section):
    """The form of a conversation: what stands before one without a system message, and before each turn."""

    context: str
    user_turn: str = "You: "
    assistant_turn: str = "Assistant: "


class ProfileProbes(Section):
    """Text that an expanded tokenizer must give back exactly, whatever the corpus holds."""

    joined_words: list[str] = Field(default_factory=list)
    sentences: list[str] = Field(default_factory=list)


class ProfilePhrases(Section):
    """What is said in the language. `translate`: wordings of a translation task, {source} and {target} stand
    for languages; `languages`: how it calls them, by code; `answer_by_letter`: asks for an option's letter;
    `option_letters`: letters that options are named by in it."""

    translate: list[str] = Field(default_factory=list)
    languages: dict[Name, str] = Field(default_factory=dict)
    answer_by_letter: str = ""
    option_letters: list[str] = Field(default_factory=list)


class ProfileSpec(Section):
    """One language.

    `code`: ISO 639, where the file is named by itself; the file's stem otherwise. `scripts`: names of Unicode
    scripts; `letters`: the alphabet among them (ranges, as "ა-ჰ"); `joiner`: the invisible character that
    holds a word's parts together; `word_characters`: others that stand inside words (an apostrophe).
    `replace`: spelling rules, each with a name to switch it off by (recipe key `normalise.rules`): what is
    written -> what is meant. NFC comes before them, as the rule `nfc`. `siblings`: near languages whose own
    score tells them from this one.
    """

    name: str = Field(min_length=1, max_length=80)
    code: Name | None = None
    scripts: list[str] = Field(min_length=1)
    letters: str | None = None
    joiner: Literal["", "\u200c", "\u200d"] = ""
    word_characters: str = ""
    direction: Literal["ltr", "rtl"] | None = None
    replace: dict[Name, dict[str, str]] = Field(default_factory=dict)
    probes: ProfileProbes = ProfileProbes()
    prompt: ProfilePrompt | None = None
    phrases: ProfilePhrases = ProfilePhrases()
    siblings: list[Name] = Field(default_factory=list)

    @field_validator("word_characters")
    @classmethod
    def _are_no_words(cls, value: str) -> str:
        if wrong := next((one for one in value if one.isalnum() or one.isspace()), None):
            raise ValueError(f"{wrong!r} is a letter, a digit or a space; give marks such as ' and -")
        return value

    @field_validator("letters")
    @classmethod
    def _is_class(cls, value: str | None) -> str | None:
        if value is not None and not _CLASS.fullmatch(value):
            raise ValueError("write characters and ranges only, as in ა-ჰ, without brackets")
        if value:
            try:
                re.compile(f"[{value}]")
            except re.error as error:
                raise ValueError(f"no list of characters and ranges: {error}") from None
        return value

    @model_validator(mode="after")
    def _rules_settle(self) -> Self:
        """One pass has to be enough: what a rule writes, no rule may change again."""
        for rule, pairs in self.replace.items():
            for wrong, right in pairs.items():
                if not wrong:
                    raise ValueError(f"replace.{rule}: an empty text cannot be replaced")
                for other, others in self.replace.items():
                    again = next((one for one in others if one in right), None)
                    if again is not None:
                        raise ValueError(
                            f"replace.{rule} writes {right!r}, in which replace.{other} changes {again!r} "
                            "again; write what is meant in the end"
                        )
        return self

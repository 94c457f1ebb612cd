"""Sources of text, how they are normalised and judged, and what is held out of training."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from persianmind.common.default_language import DEFAULT_LANGUAGE, target_language
from persianmind.recipe.section import Count, Name, Ratio, Section


class Normalise(Section):
    """One spelling for each language, by its profile (docs/languages.md); `off` leaves text as it is.

    `digits`: `native` writes the language's own, `ascii` 0-9. `diacritics`: `strip` takes vowel marks away.
    `rules`: switches single rules of a profile by name ({space_runs: false}).
    """

    enabled: bool = True
    digits: Literal["keep", "native", "ascii"] = "keep"
    diacritics: Literal["keep", "strip"] = "keep"
    rules: dict[Name, bool] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        """`normalise: off`, which YAML reads as false."""
        return {"enabled": False} if value is False or value == "off" else value

    @field_validator("digits", mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        if value not in ("keep", "native", "ascii"):
            raise ValueError(f"digits: {value!r}: give native (the language's own), ascii or keep")
        return value

    def has(self, rule: str) -> bool:
        """Whether a rule is on."""
        return self.rules.get(rule, True)


# What shapes of instruction records know a field by (persianmind/text/shapes).
Column = Literal[
    "messages", "system", "instruction", "input", "output", "history", "prompt", "completion", "question",
    "answer", "context",
]  # fmt: skip


SourceKind = Literal["text", "instruction", "parallel"]


class Source(Section):
    """One source of text or of instructions.

    `uri`: a file, glob, folder, fsspec URL, `hf://dataset`, or `package://NAME` (text that an installed
    package carries). `kind: instruction` records have the fields of one of the shapes in docs/data.md;
    `columns` names other ones by these ({output: answer_text}). Whether a record is held out follows from its
    content; from the field `group_by` where that is given, so that all records of a book, say, stay on one
    side. `kind: parallel` records hold a text in two languages: `languages` gives the field of each
    ({en: english, ka: georgian}); every pair is a translation task each way, asked in the wordings of
    `templates`, by the language of the wording ({en: ["Into {target}:"]}).
    """

    uri: str | list[str]
    kind: SourceKind = "text"
    language: Name = DEFAULT_LANGUAGE
    text_field: str = "text"
    group_by: str | None = None
    columns: dict[Column, str] = Field(default_factory=dict)
    languages: dict[Name, str] = Field(default_factory=dict)
    templates: dict[Name, list[str]] = Field(default_factory=dict)
    txt_unit: Literal["line", "paragraph"] = "line"
    licence: str = "unstated"

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages of its records: of a parallel source the two of each pair."""
        return tuple(self.languages) if self.kind == "parallel" else (self.language,)

    @property
    def target(self) -> str:
        """Of these the one that counts: of a pair the first that is not English."""
        return target_language(self.codes)

    @property
    def is_dialogue(self) -> bool:
        """Whether its records have turns, of which the answers are learnt."""
        return self.kind != "text"

    @model_validator(mode="after")
    def _parallel_has_two_languages(self) -> Self:
        if self.kind == "parallel" and len(self.languages) != 2:
            raise ValueError(
                "kind parallel needs the fields of two languages, as in languages: {en: english, ka: other}"
            )
        if self.kind != "parallel" and (self.languages or self.templates):
            raise ValueError("languages and templates are for kind parallel")
        return self


class Quality(Section):
    """Filters on records; each counts and samples what it drops. Language checks need enough letters."""

    enabled: bool = True
    min_characters: int = Field(default=1, ge=0)
    max_characters: Count = 100_000_000
    max_symbol_ratio: Ratio = 0.6
    max_repeated_line_ratio: Ratio = 0.7
    mojibake: bool = True
    identify_language: bool = False
    exact_duplicates: bool = True
    near_duplicates: bool = False
    near_duplicate_threshold: Ratio = 0.85


class HeldOut(Section):
    """Text split off by document before anything is trained on it, the tokenizer included.

    A document is held out when a keyed hash of its identity falls below `ratio`; at most
    `max_characters` per language are evaluated, the rest of the held-out documents simply stay unused. Of a
    document at most `max_document_characters`: many beginnings say more than a few long texts.
    """

    ratio: Ratio = 0.02
    max_characters: Count = 200_000
    max_document_characters: Count | None = None
    sources: list[Name] = Field(default_factory=list)

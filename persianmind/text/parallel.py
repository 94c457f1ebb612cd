"""Parallel text: a pair in two languages is two translation tasks, one each way.

Each is asked in one of several wordings, in one of the two languages; which, follows from the text alone, so
that every pass and every machine asks the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from persianmind.language import language_name
from persianmind.language.profile import Phrases
from persianmind.recipe import Source
from persianmind.text.dialogue import BadDialogueError, Message, ParsedDialogue
from persianmind.text.record import Fields
from persianmind.text.spec import SourceSpec

PARTS = 2  # records made of one pair
NESTED = "translation"  # as the hub's data sets of pairs have it


def pair_texts(fields: Fields, source: Source) -> tuple[str, ...]:
    """The two texts of a pair, in the order of `languages`.

    Raises:
        BadDialogueError: one is missing, or is no text.
    """
    nested = fields.get(NESTED)
    held: Mapping[str, Any] = nested if isinstance(nested, Mapping) else fields
    texts = []
    for field in source.languages.values():
        if field not in held:
            raise BadDialogueError("missing_field")
        text = held[field]
        if text is None:
            raise BadDialogueError("null_text")
        if not isinstance(text, str):
            raise BadDialogueError("wrong_type")
        if not text.strip():
            raise BadDialogueError("empty_text")
        texts.append(text)
    return tuple(texts)


def translation_task(texts: Sequence[str], spec: SourceSpec, part: int) -> ParsedDialogue:
    """The pair as a task: part 0 from the first of `languages` into the second, part 1 back.

    It is asked in one of the two languages, in a wording of the source's or of the language's profile; in
    English where neither has any.

    texts: of `pair_texts`, in any spelling.
    """
    codes, templates = list(spec.source.languages), spec.source.templates
    phrases = {code: spec.profile_of(code).phrases for code in (*codes, "en")}
    asked, answer = (0, 1) if part == 0 else (1, 0)
    wordings = [(code, one) for code in codes for one in templates.get(code, phrases[code].translate)]
    wordings = wordings or [("en", one) for one in phrases["en"].translate]
    digest = xxhash.xxh3_64_intdigest("\0".join(texts).encode("utf-8", "surrogatepass"), seed=part)
    language, wording = wordings[digest % len(wordings)]
    question = wording.replace("{source}", _name(codes[asked], language, phrases))
    question = question.replace("{target}", _name(codes[answer], language, phrases))
    turns = (Message("user", f"{question}\n{texts[asked]}"), Message("assistant", texts[answer]))
    return ParsedDialogue(turns)


def _name(code: str, language: str, phrases: Mapping[str, Phrases]) -> str:
    """What a language calls another; the code where nobody says."""
    return language_name(code) if language == "en" else phrases[language].languages.get(code, code)

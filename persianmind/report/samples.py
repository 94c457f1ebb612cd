"""What the model wrote after the recipe's prompts: the base and every stage side by side."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from persianmind.report.languages import PageLanguage, target
from persianmind.report.read import RunFiles

LONGEST_UNIT, LEAST_TIMES, LEAST_CHARACTERS = 80, 4, 12  # 1,000,000 repeats nothing
READ_CHARACTERS = 20_000  # of an answer, for a repetition
_REPEATED = re.compile(rf"(\S.{{0,{LONGEST_UNIT - 1}}}?)\1{{{LEAST_TIMES - 1},}}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WrittenText:
    """A text with what its element needs. lang: "" where it is not known; repeated: what it says over and
    over, "" for nothing."""

    text: str
    lang: str
    direction: str
    repeated: str = ""


@dataclass(frozen=True, slots=True)
class SampleView:
    """What was written after one prompt, by stage."""

    prompt: WrittenText
    answers: list[tuple[str, WrittenText]]


def samples(run: RunFiles) -> list[SampleView]:
    """Text the model generated, by prompt."""
    language = target(run)
    by_prompt: dict[str, list[tuple[str, WrittenText]]] = {}
    for item in run.results.samples:
        by_prompt.setdefault(item.prompt, []).append((item.stage, _written(item.text, language)))
    return [SampleView(_written(prompt, language), answers) for prompt, answers in by_prompt.items()]


def repeated_text(text: str) -> str:
    """What a text says at least four times in a row, "" for nothing; a line of dashes is no repetition."""
    for found in _REPEATED.finditer(text[:READ_CHARACTERS]):
        if len(found[0]) >= LEAST_CHARACTERS and any(map(str.isalnum, found[1])):
            return found[1].strip()
    return ""


def _written(text: str, language: PageLanguage) -> WrittenText:
    """In the target's language where the first letter runs in its direction: an English answer of a
    model of another script is in no language that is known."""
    direction = _direction(text) or language.direction
    lang = language.tag if direction == language.direction else ""
    return WrittenText(text, lang, direction, repeated_text(text))


def _direction(text: str) -> str:
    for character in text:
        match unicodedata.bidirectional(character):
            case "R" | "AL":
                return "rtl"
            case "L":
                return "ltr"
    return ""

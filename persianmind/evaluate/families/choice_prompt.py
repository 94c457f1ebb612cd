"""How a question with candidates is written for a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from persianmind.evaluate.items import ChoiceItem

LETTERS = "ABCDEFGHIJ"
# A capital by itself, or a small one with what closes an option's mark.
_LETTER = re.compile(r"(?<![A-Za-z])(?:[A-J](?![A-Za-z])|^\s*\(?[a-j](?=[).:]))")
_WORD_END = re.compile(r"[^\w\u200c]")
_NUMBER = re.compile(r"(?<!\d)(\d{1,2})(?!\d)")  # in the digits of any script


def rotated(candidates: Sequence[str], by: int) -> list[str]:
    """The cyclic order in which candidate `by` stands first."""
    return [*candidates[by:], *candidates[:by]]


def letter_prompt(item: ChoiceItem, order: int, answer_word: str) -> str:
    """The question with its candidates under letters, `order` of them moved to the end; up to the answer.

    With a passage as the paper of Belebele has it (P:, Q:, A:, ...), else as MMLU's (A., B., ...).
    """
    mark = ":" if item.passage else "."
    options = [
        f"{letter}{mark} {text}"
        for letter, text in zip(LETTERS, rotated(item.candidates, order), strict=False)
    ]
    return "\n".join([*_question(item), *options, answer_word])


def text_prompt(item: ChoiceItem, answer_word: str) -> str:
    """The question alone; a candidate follows as a whole."""
    return "\n".join([*_question(item), answer_word])


def asked_prompt(item: ChoiceItem, asked: str) -> str:
    """The question as one would type it to an assistant. asked: what asks for the letter alone."""
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, item.candidates, strict=False)]
    passage = [item.passage] if item.passage else []
    return "\n".join([*passage, item.question, *options, asked])


def read_answer(answer: str, candidates: Sequence[str], option_letters: Sequence[str] = ()) -> int | None:
    """The candidate that a written answer names: by its letter, its number, or its text; None where it names
    none, or several. option_letters: those of the language, beside A, B, C."""
    bare = answer.strip()
    first = bare.split("\n", 1)[0]
    word = _WORD_END.split(first, maxsplit=1)[0]
    if word in option_letters[: len(candidates)]:
        return option_letters.index(word)
    if found := _one_of({LETTERS.index(one.upper()) for one in _LETTER.findall(first)}, candidates):
        return found[0]
    numbers = {int(one) - 1 for one in _NUMBER.findall(first) if 1 <= int(one) <= 10}
    if any(1 <= int(one) <= 10 for text in candidates for one in _NUMBER.findall(text)):
        numbers = set()  # a number is what a candidate says, not which one it is
    if found := _one_of(numbers, candidates):
        return found[0]
    held = {place for place, text in enumerate(candidates) if text.strip() and text.strip() in bare}
    return held.pop() if len(held) == 1 else None


def _one_of(places: set[int], candidates: Sequence[str]) -> list[int]:
    """The one place that is a candidate's; none where there are none or several."""
    found = [one for one in places if one < len(candidates)]
    return found if len(found) == 1 else []


def _question(item: ChoiceItem) -> list[str]:
    return [f"P: {item.passage}", f"Q: {item.question}"] if item.passage else [item.question]

"""What tests are made of, whatever file they came from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from persianmind.common.checksum import hash_text


class BadItemError(Exception):
    """A record that is no item of its layout; the message is the name of the reason, which is counted."""


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question with candidates. answer: of the right one, from 0. category, subsets: scored apart too."""

    question: str
    candidates: tuple[str, ...]
    answer: int
    passage: str = ""
    category: str = ""
    subsets: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is written in it."""
        return tuple(text for text in (self.passage, self.question, *self.candidates) if text)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with the candidates: an empty one, two that are equal."""
        bare = [candidate.strip() for candidate in self.candidates]
        found = []
        if not all(bare):
            found.append("empty_candidate")
        if len({*bare}) < len(bare):
            found.append("equal_candidates")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class TranslationItem:
    """A sentence and its translation."""

    source: str
    target: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Both."""
        return (self.source, self.target)


@dataclass(frozen=True, slots=True)
class PairItem:
    """Two sentences; score: how alike they are by people's judgement, None where each is a translation."""

    first: str
    second: str
    score: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Both."""
        return (self.first, self.second)


@dataclass(frozen=True, slots=True)
class TextItem:
    """A document, or what is typed to a model."""

    text: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Its one text."""
        return (self.text,)


Item = ChoiceItem | TranslationItem | PairItem | TextItem
I = TypeVar("I", ChoiceItem, TranslationItem, PairItem, TextItem)  # noqa: E741 - as T is a type's


def item_key(item: Item) -> str:
    """What tells an item from others: a hash of its texts, since ids of published sets repeat."""
    return hash_text(*item.texts)


@dataclass(slots=True)
class ReadItems(Generic[I]):
    """Items in the order of their file, and what was counted while reading (records that are no items, by
    reason; candidates that are empty or equal)."""

    items: list[I]
    counts: Counter[str] = field(default_factory=Counter)

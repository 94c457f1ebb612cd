"""A family of tests: how its items are put to a model, and what metrics their records give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

from persianmind.evaluate.evaluated import EvaluatedModel
from persianmind.evaluate.items import I, Item
from persianmind.evaluate.measured import Measured, compare
from persianmind.language import LanguageProfile
from persianmind.recipe import Section
from persianmind.run.evaluation_records import Comparison

CHUNK_ITEMS = 64  # a record reaches the disk after at most so many
Record = dict[str, Any]


class NotPossibleError(Exception):
    """A test that this model cannot take; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What scoring a task needs beside its items.

    language: of the items. examples: shown before each, never of the test itself. dev: items on which
    something is chosen. options: of the family, checked. gather: a value of this rank to those of all, in
    order of rank; all ranks call it together.
    """

    model: EvaluatedModel
    language: str
    options: Any
    examples: Sequence[Item] = ()
    dev: Sequence[Item] = ()
    gather: Callable[[Any], list[Any]] = lambda value: [value]

    @property
    def profile(self) -> LanguageProfile:
        """That of the items' language."""
        return self.model.profile(self.language)


@dataclass(frozen=True, slots=True)
class Numbered(Generic[I]):
    """Items of this rank with their numbers in the whole test."""

    items: Mapping[int, I] = field(default_factory=dict)

    def chunks(self, order: Callable[[I], Any], size: int = CHUNK_ITEMS) -> Iterator[dict[int, I]]:
        """Some at a time, sorted, so that what items have in common is read once."""
        numbers = sorted(self.items, key=lambda number: (order(self.items[number]), number))
        for start in range(0, len(numbers), size):
            yield {number: self.items[number] for number in numbers[start : start + size]}


class TaskFamily(ABC, Generic[I]):
    """name: as layouts have it. options: what a task may say under `options`."""

    name: ClassVar[str]
    options: ClassVar[type[Section]]

    @abstractmethod
    def check(self, context: TaskContext) -> None:
        """Whether the model can take it.

        Raises:
            NotPossibleError: with what is missing.
        """

    @abstractmethod
    def score(self, context: TaskContext, numbered: Numbered[I]) -> Iterator[Record]:
        """One record per item of this rank, in any order, each with its number as `item`; plain JSON."""

    @abstractmethod
    def measure(self, context: TaskContext, records: Sequence[Record]) -> list[Measured]:
        """The metrics of all records of a task, which are in the order of their numbers."""

    def prompt_parts(self, context: TaskContext) -> Sequence[str]:
        """What identifies how items are put to the model; its hash stands in each result."""
        return (self.name, context.options.model_dump_json())

    def compare(
        self, first: Sequence[Measured], second: Sequence[Measured], model: str
    ) -> list[Comparison | None]:
        """Each metric of the first model against the same one of the second."""
        others = {(one.metric, repr(sorted(one.settings.items()))): one for one in second}
        return [
            compare(one, other, model)
            if (other := others.get((one.metric, repr(sorted(one.settings.items()))))) is not None
            else None
            for one in first
        ]

"""A layout: how one published file says what an item is. One class in one file, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Generic

from persianmind.common.errors import DataError
from persianmind.evaluate.items import BadItemError, ChoiceItem, I, Item, ReadItems
from persianmind.evaluate.rows import Row, read_rows


class Layout(ABC, Generic[I]):
    """name: as suites call it. family: what its items are scored as."""

    name: ClassVar[str]
    family: ClassVar[str]

    @abstractmethod
    def read(self, places: Sequence[str]) -> ReadItems[I]:
        """The items of its file or files.

        Raises:
            FileNotFoundError: a file is not there.
            DataError: a file is not of this layout.
        """


class RowLayout(Layout[I]):
    """A layout whose file is a list of records, each an item."""

    sheet: ClassVar[str | None] = None

    @abstractmethod
    def parse(self, row: Row) -> I:
        """One record.

        Raises:
            BadItemError: it is no item (a stray label); it is left out and counted.
            KeyError, TypeError, ValueError: it is of another layout.
        """

    def read(self, places: Sequence[str]) -> ReadItems[I]:
        found: ReadItems[I] = ReadItems([])
        for place in places:
            for number, row in enumerate(read_rows(place, self.sheet), 1):
                try:
                    item = self.parse(row)
                except BadItemError as error:
                    found.counts[str(error)] += 1
                    continue
                except (KeyError, TypeError, ValueError, IndexError) as error:
                    fields = ", ".join(map(str, list(row)[:12]))
                    raise DataError(
                        f"{place}: record {number} is not of the layout {self.name} "
                        f"({type(error).__name__}: {error}); it has the fields {fields}"
                    ) from None
                found.items.append(item)
                found.counts.update(_flags(item))
        if not found.items:
            raise DataError(f"{', '.join(places)}: no item of the layout {self.name} in it")
        return found


def _flags(item: Item) -> Counter[str]:
    return Counter(item.flags) if isinstance(item, ChoiceItem) else Counter()


def text_of(row: Row, key: str) -> str:
    """A field that must be a string.

    Raises:
        KeyError, TypeError: it is missing, or something else.
    """
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no string")
    return value.strip()


def number_of(value: Any) -> int:
    """A whole number, however it is written: 2, 2.0, "2", in the digits of any script.

    Raises:
        ValueError: it is none.
    """
    number = float(str(value).strip())
    if number != int(number):
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def answer_of(value: Any, count: int) -> int:
    """The place of an answer that is given as a number from 1.

    Raises:
        ValueError: it is none of `count` candidates.
    """
    place = number_of(value) - 1
    if not 0 <= place < count:
        raise ValueError(f"answer {value!r} is none of {count} candidates")
    return place


def lettered(row: Row, key: str, count: int) -> int:
    """The place of an answer that is given as a letter ("A"), or as a number from 0.

    Raises:
        ValueError: it is none of `count` candidates.
    """
    value = row[key]
    is_letter = isinstance(value, str) and value.strip().upper() in "ABCDEFGHIJ"[:count]
    place = "ABCDEFGHIJ".index(value.strip().upper()) if is_letter else number_of(value)
    if not 0 <= place < count:
        raise ValueError(f"answer {value!r} is none of {count} candidates")
    return place


@cache
def layouts() -> Mapping[str, Layout[Any]]:
    """All of this package, by name."""
    import persianmind.evaluate.layouts as package

    found: dict[str, Layout[Any]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        for value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Layout) and hasattr(value, "name"):
                found[value.name] = value()
    return found

"""Models of what is read from files, whose numbers are ones that a run can have.

A sound checksum says that a file is as somebody wrote it, not that this program did: a count of 401 digits
or a joule of 1e308 would end in an overflow far from the file. Here it is refused where it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator

LARGEST_COUNT = 2**64 - 1  # of bytes, tokens, steps; the largest seed
LARGEST_EXPONENT = 230.0  # e to it is below the next
LARGEST_AMOUNT = 1e100  # sums, products and squares of such floats stay finite

_SCALARS = {int, float, str, type(None)}
_WITHOUT_NUMBERS = {bool, str, type(None)}


def is_bounded(value: Any) -> bool:
    """Whether every number in a plain tree is finite and no larger than any of ours."""
    if isinstance(value, int):
        return -LARGEST_COUNT <= value <= LARGEST_COUNT
    if isinstance(value, float):
        return -LARGEST_AMOUNT <= value <= LARGEST_AMOUNT  # NaN is not
    return all(map(is_bounded, _items(value)))


def whole_count(value: object) -> int:
    """A whole number from 0 on that a file may state.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
        raise ValueError("a count is no whole number, or larger than any of its kind")
    return value


class BoundedModel(BaseModel):
    """Takes no number beyond the limits above, also not within mappings and lists, and no true or false in
    place of a number."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _check_numbers(cls, content: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        numbers, others = _fields_to_check(cls)
        if isinstance(content, Mapping):
            for name in numbers:
                if _has_flag(content.get(name)):
                    raise ValueError(f"{name} is true or false and should be a number")
        model = handler(content)
        values = model.__dict__
        for name in (*numbers, *others):
            if (value := values[name]) is not None and not is_bounded(value):
                raise ValueError(f"{name} is larger than any number of its kind")
        return model


@cache
def _fields_to_check(model: type[BaseModel]) -> tuple[Sequence[str], Sequence[str]]:
    """(fields that hold numbers, or mappings and lists of them, and nothing that is true or false; other
    fields that may have a number somewhere). A model in a field sees to its own."""
    numbers, others = [], []
    for name, field in model.model_fields.items():
        kinds = {*_kinds(field.annotation)}
        if {int, float} & kinds and not {bool, Any} & kinds:
            numbers.append(name)
        elif not kinds <= _WITHOUT_NUMBERS and not any(map(_is_model, kinds)):
            others.append(name)
    return numbers, others


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel | Enum)


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in get_args(annotation):
        yield from _kinds(one)


def _has_flag(value: Any) -> bool:
    if value.__class__ in _SCALARS:  # nearly all are; a ledger has hundreds of thousands
        return False
    return isinstance(value, bool) or any(map(_has_flag, _items(value)))


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, field.name) for field in fields(value))

"""A plain tree of any pydantic model, every field filled by looking at the model; where its numbers stand."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

Place = tuple[str | int, ...]
FIXED: dict[str, Any] = {"time": "2026-03-01T06:00:00+00:00", "profiles": {}}


def filled(model: type[BaseModel]) -> dict[str, Any]:
    """Every field with a value of its first kind that is not None; one item in each list and mapping."""
    return {
        name: FIXED[name] if name in FIXED else _value(field.annotation)
        for name, field in model.model_fields.items()
    }


def _value(kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _value(arguments[0])
    if origin in (Union, types.UnionType):
        return _value(next(one for one in arguments if one is not type(None)))
    if origin is Literal:
        return arguments[0]
    if origin is dict:
        return {str(_value(arguments[0])): _value(arguments[1])}
    if origin in (list, tuple):
        return [_value(arguments[0])]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return filled(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind)).value
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: _value(hints[field.name]) for field in fields(kind)}
    return {bool: False, int: 3, float: 1.5, str: "text", Any: 2.5}[kind]


def numbers(tree: Any, place: Place = ()) -> Iterator[Place]:
    """Where in a tree a number stands."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*place, key)
        yield from numbers(value, (*place, key))


def replaced(tree: Any, place: Place, value: Any) -> Any:
    """The same tree with another value at a place."""
    if not place:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[place[0]] = replaced(tree[place[0]], place[1:], value)
    return copy

"""Shapes of instruction records, a module each: whatever module here defines `SHAPE` is one (see
base.Shape)."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from persianmind.text.dialogue import BadDialogueError, ParsedDialogue
from persianmind.text.shapes.base import Shape


@cache
def shapes() -> tuple[Shape, ...]:
    """Every shape, in the order in which a record is held against them."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    found: list[Shape] = [module.SHAPE for module in modules if hasattr(module, "SHAPE")]
    return tuple(sorted(found, key=lambda one: one.order))


def parse_dialogue(fields: Mapping[str, Any], columns: Mapping[Any, str] | None = None) -> ParsedDialogue:
    """The dialogue in an instruction record, of the first shape whose fields it has.

    columns: names of the record's own fields by the names that shapes know ("output": "answer_text").

    Raises:
        BadDialogueError: it has the fields of none (`missing_field`), or is not what its fields say.
        UntrainableDialogueError: it holds tools or other things that are not text.
    """
    if columns:
        named = {name: fields[column] for name, column in columns.items() if column in fields}
        fields = {**{key: value for key, value in fields.items() if key not in columns.values()}, **named}
    for shape in shapes():
        if shape.fits(fields):
            return shape.parse(fields)
    raise BadDialogueError("missing_field")


def known_fields() -> str:
    """The fields of every shape, for messages."""
    return "; ".join(shape.fields for shape in shapes())

"""What a shape of instruction records is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from persianmind.text.dialogue import BadDialogueError, ParsedDialogue


class Shape(Protocol):
    """One shape of instruction records. A module of this package that defines `SHAPE` adds one.

    order: lower ones are tried first. fields: what it is told by, for messages.
    """

    @property
    def order(self) -> int:
        """As above."""
        ...

    @property
    def fields(self) -> str:
        """As above."""
        ...

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record has the fields of this shape."""
        ...

    def parse(self, fields: Mapping[str, Any]) -> ParsedDialogue:
        """The dialogue in a record that fits.

        Raises:
            BadDialogueError: it is none.
            UntrainableDialogueError: it holds what is not text.
        """
        ...


def field_text(fields: Mapping[str, Any], name: str) -> str:
    """The text of a field; "" where it is missing or null.

    Raises:
        BadDialogueError: it is no text.
    """
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadDialogueError("wrong_type")
    return value.strip()


def given(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first of these fields that a record has with a value in it."""
    return next((name for name in names if fields.get(name) is not None), None)

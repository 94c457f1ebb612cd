"""Plain text, and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from persianmind.evaluate.items import BadItemError, ReadItems, TextItem
from persianmind.evaluate.layouts.base import Layout, RowLayout
from persianmind.evaluate.rows import Row, plain_lines


class TextDocuments(RowLayout[TextItem]):
    """Records with a field `text`, a document each."""

    name: ClassVar[str] = "documents"
    family: ClassVar[str] = "text"

    def parse(self, row: Row) -> TextItem:
        if not isinstance(row["text"], str):
            raise TypeError("text is no string")
        if not row["text"].strip():
            raise BadItemError("empty_text")
        return TextItem(row["text"])


class Prompts(Layout[TextItem]):
    """A text file with a prompt in every line."""

    name: ClassVar[str] = "prompts"
    family: ClassVar[str] = "health"

    def read(self, places: Sequence[str]) -> ReadItems[TextItem]:
        lines = [line.strip() for place in places for line in plain_lines(place)]
        return ReadItems([TextItem(line) for line in lines if line])

"""Belebele: a passage, a question, four answers; 900 records per language."""

from __future__ import annotations

from typing import ClassVar

from persianmind.evaluate.items import ChoiceItem
from persianmind.evaluate.layouts.base import RowLayout, answer_of, text_of
from persianmind.evaluate.rows import Row


class Belebele(RowLayout[ChoiceItem]):
    """facebookresearch/belebele, also as on the Hub (facebook/belebele)."""

    name: ClassVar[str] = "belebele"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        candidates = tuple(text_of(row, f"mc_answer{number}") for number in range(1, 5))
        return ChoiceItem(
            passage=text_of(row, "flores_passage"),
            question=text_of(row, "question"),
            candidates=candidates,
            answer=answer_of(row["correct_answer_num"], 4),
        )

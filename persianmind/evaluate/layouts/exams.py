"""Exam questions with four candidates: ParsiNLU, Khayyam (PersianMMLU), Global-MMLU, INCLUDE."""

from __future__ import annotations

from typing import ClassVar

from persianmind.evaluate.items import ChoiceItem
from persianmind.evaluate.layouts.base import RowLayout, answer_of, lettered, text_of
from persianmind.evaluate.rows import Row


class ParsinluChoice(RowLayout[ChoiceItem]):
    """persiannlp/parsinlu data/multiple-choice: exactly four candidates, some empty or equal; the answer from
    1, once as a Persian digit; ids repeat."""

    name: ClassVar[str] = "parsinlu-choice"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        candidates = row["candidates"]
        if not isinstance(candidates, list) or len(candidates) != 4:
            raise TypeError("candidates is no list of 4")
        return ChoiceItem(
            question=text_of(row, "question"),
            candidates=tuple(str(candidate).strip() for candidate in candidates),
            answer=answer_of(row["answer"], 4),
            category=str(row.get("category", "")),
        )


class Khayyam(RowLayout[ChoiceItem]):
    """raia-center/khayyam-challenge: the key from 1, a float in its CSV; `Is Trap` marks trap questions."""

    name: ClassVar[str] = "khayyam"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        trap = str(row.get("Is Trap", "")).strip().lower() == "true"
        return ChoiceItem(
            question=str(row["Question Body"]).strip(),
            candidates=tuple(str(row[f"Choice {number}"]).strip() for number in range(1, 5)),
            answer=answer_of(row["Key"], 4),
            category=str(row.get("final_category_fa") or row.get("Category") or "").strip(),
            subsets=("trap",) if trap else (),
        )


class _Lettered(RowLayout[ChoiceItem]):
    """option_a to option_d, the answer as a letter or a number from 0."""

    category_key: ClassVar[str]

    def parse(self, row: Row) -> ChoiceItem:
        return ChoiceItem(
            question=str(row["question"]).strip(),
            candidates=tuple(str(row[f"option_{letter}"]).strip() for letter in "abcd"),
            answer=lettered(row, "answer", 4),
            category=str(row.get(self.category_key) or ""),
        )


class GlobalMmlu(_Lettered):
    """CohereForAI/Global-MMLU, also its full and lite copies."""

    name: ClassVar[str] = "global-mmlu"
    family: ClassVar[str] = "choice"
    category_key: ClassVar[str] = "subject_category"


class Include(_Lettered):
    """CohereForAI/include-base-44."""

    name: ClassVar[str] = "include"
    family: ClassVar[str] = "choice"
    category_key: ClassVar[str] = "domain"


class PlainChoice(RowLayout[ChoiceItem]):
    """Anybody's own: question, candidates (two to ten), answer as a number from 1, as a letter, or as the
    text of a candidate; passage and category may be there."""

    name: ClassVar[str] = "choice"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        given = row["candidates"]
        if not isinstance(given, list) or not 2 <= len(given) <= 10:
            raise TypeError("candidates is no list of 2 to 10")
        candidates = tuple(str(candidate).strip() for candidate in given)
        return ChoiceItem(
            question=text_of(row, "question"),
            candidates=candidates,
            answer=_plain_answer(row, candidates),
            passage=str(row.get("passage") or "").strip(),
            category=str(row.get("category") or ""),
        )


def _plain_answer(row: Row, candidates: tuple[str, ...]) -> int:
    value = row["answer"]
    if isinstance(value, str) and candidates.count(value.strip()) == 1:
        return candidates.index(value.strip())
    if isinstance(value, str) and value.strip().upper() in "ABCDEFGHIJ"[: len(candidates)]:
        return lettered(row, "answer", len(candidates))
    return answer_of(value, len(candidates))

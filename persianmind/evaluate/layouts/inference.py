"""Entailment and paraphrase as questions with fixed candidates: FarsTail, ParsiNLU.

The questions are put in the sets' own language, as its profile words them; the candidates are the same in
every item, so that the order of the letters says nothing about the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.evaluate.items import BadItemError, ChoiceItem, ReadItems
from persianmind.evaluate.layouts.base import Layout, RowLayout, text_of
from persianmind.evaluate.rows import Row, plain_lines
from persianmind.language import profile_for

LABELS = ("e", "n", "c")
_QUESTIONS = profile_for(DEFAULT_LANGUAGE).phrases.questions
ENTAILMENT, PARAPHRASE = _QUESTIONS["entailment"], _QUESTIONS["paraphrase"]
SEPARATOR = "<sep>"


def entailment_item(
    premise: str, hypothesis: str, label: object, *, category: str = "", subsets: Sequence[str] = ()
) -> ChoiceItem:
    """A pair of sentences as a question.

    Raises:
        BadItemError: a stray label ("xx", "-"), of which published files have some.
    """
    if label not in LABELS:
        raise BadItemError("stray_label")
    return ChoiceItem(
        passage=premise,
        question=ENTAILMENT.ask(premise, hypothesis),
        candidates=ENTAILMENT.candidates,
        answer=LABELS.index(str(label)),
        category=category,
        subsets=tuple(subsets),
    )


class FarsTail(RowLayout[ChoiceItem]):
    """dml-qom/FarsTail data/*-word.csv: separated by TABs, quoted; the test file marks hard pairs."""

    name: ClassVar[str] = "farstail"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        hard = [key for key in ("hard(hypothesis)", "hard(overlap)") if str(row.get(key, "")).strip() == "1"]
        label = text_of(row, "label")
        return entailment_item(text_of(row, "premise"), text_of(row, "hypothesis"), label, subsets=hard)


class ParsinluEntailment(RowLayout[ChoiceItem]):
    """persiannlp/parsinlu data/entailment/*.csv: fields hold line breaks; stray labels `xx` and `-`."""

    name: ClassVar[str] = "parsinlu-entailment"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        category = str(row.get("source") or "")
        label = text_of(row, "label")
        return entailment_item(text_of(row, "sent1"), text_of(row, "sent2"), label, category=category)


class MergedEntailment(Layout[ChoiceItem]):
    """persiannlp/parsinlu data/entailment/merged_with_farstail/*.tsv: premise<sep>hypothesis TAB label, no
    header."""

    name: ClassVar[str] = "parsinlu-entailment-merged"
    family: ClassVar[str] = "choice"

    def read(self, places: Sequence[str]) -> ReadItems[ChoiceItem]:
        from persianmind.common.errors import DataError

        found: ReadItems[ChoiceItem] = ReadItems([])
        for place in places:
            for number, line in enumerate(plain_lines(place), 1):
                pair, tab, label = line.rstrip("\r").rpartition("\t")
                premise, separator, hypothesis = pair.partition(SEPARATOR)
                if not (tab and separator):
                    raise DataError(f"{place}:{number} is not premise{SEPARATOR}hypothesis TAB label")
                try:
                    found.items.append(entailment_item(premise.strip(), hypothesis.strip(), label.strip()))
                except BadItemError as error:
                    found.counts[str(error)] += 1
        return found


class ParsinluParaphrase(RowLayout[ChoiceItem]):
    """persiannlp/parsinlu data/qqp: two questions, label "1" where they ask the same."""

    name: ClassVar[str] = "parsinlu-qqp"
    family: ClassVar[str] = "choice"

    def parse(self, row: Row) -> ChoiceItem:
        label = str(row["label"]).strip()
        if label not in ("0", "1"):
            raise BadItemError("stray_label")
        return ChoiceItem(
            question=PARAPHRASE.ask(text_of(row, "q1"), text_of(row, "q2")),
            candidates=PARAPHRASE.candidates,
            answer=int(label),
            category=str(row.get("category") or ""),
        )

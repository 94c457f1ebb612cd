"""Sentences and their translations, and pairs with a score of how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from persianmind.common.errors import DataError
from persianmind.evaluate.items import BadItemError, PairItem, ReadItems, TranslationItem
from persianmind.evaluate.layouts.base import Layout, RowLayout
from persianmind.evaluate.rows import Row, plain_lines

# Field names that files of pairs use for their two sides.
SIDES = (
    ("source", "target"),
    ("en", "fa"),
    ("eng", "pes"),
    ("english", "persian"),
    ("sentence1", "sentence2"),
)


def _sides(row: Row) -> tuple[str, str]:
    if isinstance(row.get("translation"), dict):
        row = row["translation"]
    for first, second in SIDES:
        if isinstance(row.get(first), str) and isinstance(row.get(second), str):
            return row[first].strip(), row[second].strip()
    raise KeyError(" / ".join(f"{first}, {second}" for first, second in SIDES))


class Lines(Layout[TranslationItem]):
    """FLORES, the Quran of ParsiNLU and the like: two files, line n of one is line n of the other."""

    name: ClassVar[str] = "lines"
    family: ClassVar[str] = "translation"

    def read(self, places: Sequence[str]) -> ReadItems[TranslationItem]:
        if len(places) != 2:
            raise DataError(f"{', '.join(places)}: the layout lines needs two files, the source's first")
        source, target = (plain_lines(place) for place in places)
        if len(source) != len(target):
            raise DataError(
                f"{places[0]} has {len(source)} lines and {places[1]} {len(target)}: they are not aligned"
            )
        found: ReadItems[TranslationItem] = ReadItems([])
        for first, second in zip(source, target, strict=True):
            if first.strip() and second.strip():
                found.items.append(TranslationItem(first.strip(), second.strip()))
            else:
                found.counts["empty_side"] += 1
        return found


class Translations(RowLayout[TranslationItem]):
    """Records with both sides: source and target, en and fa, or {translation: {en, fa}} as on the Hub."""

    name: ClassVar[str] = "translations"
    family: ClassVar[str] = "translation"

    def parse(self, row: Row) -> TranslationItem:
        first, second = _sides(row)
        if not (first and second):
            raise BadItemError("empty_side")
        return TranslationItem(first, second)


class ParallelPairs(RowLayout[PairItem]):
    """The same records, to be found among each other by their vectors."""

    name: ClassVar[str] = "parallel-pairs"
    family: ClassVar[str] = "similarity"

    def parse(self, row: Row) -> PairItem:
        first, second = _sides(row)
        if not (first and second):
            raise BadItemError("empty_side")
        return PairItem(first, second)


class _Pests(RowLayout[PairItem]):
    """mohammadabdous/PESTS, FaEnDataSetV7.xlsx: farsiSentence, englishSentence, score from 0 to 5."""

    family: ClassVar[str] = "similarity"

    def parse(self, row: Row) -> PairItem:
        if row["farsiSentence"] is None or row["englishSentence"] is None or row["score"] is None:
            raise BadItemError("empty_side")
        return PairItem(
            str(row["farsiSentence"]).strip(), str(row["englishSentence"]).strip(), float(row["score"])
        )


class PestsTest(_Pests):
    """Its sheet `test`."""

    name: ClassVar[str] = "pests"
    sheet: ClassVar[str | None] = "test"


class PestsDev(_Pests):
    """Its sheet `dev`, on which a layer is chosen."""

    name: ClassVar[str] = "pests-dev"
    sheet: ClassVar[str | None] = "dev"


class ScoredPairs(RowLayout[PairItem]):
    """Records with both sides and a score."""

    name: ClassVar[str] = "scored-pairs"
    family: ClassVar[str] = "similarity"

    def parse(self, row: Row) -> PairItem:
        return PairItem(*_sides(row), float(row["score"]))

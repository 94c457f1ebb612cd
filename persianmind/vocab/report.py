"""What an expansion does to text: tokens a word, characters a token, words left whole, dead pieces."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from persianmind.common.errors import VocabError
from persianmind.language.persian import LETTERS, MARKS, ZWNJ
from persianmind.vocab.families.base import Base

_WORD = re.compile(f"[{LETTERS}{MARKS}{ZWNJ}]+")
_BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class Measure:
    """One tokenizer on one text. `whole_words`: share of Persian word tokens that are a single piece."""

    tokens: int
    tokens_per_word: float
    characters_per_token: float
    whole_words: float


@dataclass(frozen=True)
class FileReport:
    """Both tokenizers on one file (or on all of them). Words are what white space separates."""

    name: str
    words: int
    characters: int
    base: Measure
    expanded: Measure


@dataclass(frozen=True)
class Report:
    """`unreachable`: new pieces the tokenizer does not give for their own text; `unused`: new pieces that
    the text never used (a sign that text and vocabulary do not match)."""

    files: tuple[FileReport, ...]
    total: FileReport
    added: int
    unreachable: tuple[str, ...]
    unused: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Tally:
    """Running sums of one tokenizer over one text."""

    def __init__(self, tokenizer: Base, used: set[int]) -> None:
        self.tokenizer = tokenizer
        self.used = used
        self.tokens = 0
        self.persian_words = 0
        self.whole_words = 0
        self._whole: dict[str, bool] = {}

    def add(self, texts: Sequence[str]) -> None:
        for ids in self.tokenizer.encode(texts):
            self.tokens += len(ids)
            self.used.update(ids)
        for text in texts:
            for word in _WORD.findall(text):
                self.persian_words += 1
                self.whole_words += self._is_whole(word)

    def _is_whole(self, word: str) -> bool:
        """Whether the word, as it stands after a space, is one piece."""
        found = self._whole.get(word)
        if found is None:
            found = self._whole[word] = len(self.tokenizer.ids_of(f" {word}")) == 1
        return found

    def measure(self, words: int, characters: int) -> Measure:
        return Measure(
            self.tokens,
            _ratio(self.tokens, words),
            _ratio(characters, self.tokens),
            _ratio(self.whole_words, self.persian_words),
        )


def make_report(base: Base, expanded: Base, files: Mapping[str, Callable[[], Iterator[str]]]) -> Report:
    """Measures base and expanded tokenizer on every file of normalised documents, and on all together.

    Raises:
        VocabError: `expanded` is no expansion of `base`.
    """
    _check_same_base(base, expanded)
    used: set[int] = set()
    reports, totals = [], [_Tally(base, set()), _Tally(expanded, used)]
    words_total = characters_total = 0
    for name, texts in files.items():
        tallies = [_Tally(base, set()), _Tally(expanded, used)]
        words = characters = 0
        for batch in _batches(texts()):
            words += sum(len(text.split()) for text in batch)
            characters += sum(map(len, batch))
            for tally in tallies:
                tally.add(batch)
        for total, tally in zip(totals, tallies, strict=True):
            total.tokens += tally.tokens
            total.persian_words += tally.persian_words
            total.whole_words += tally.whole_words
        reports.append(_file_report(name, words, characters, tallies))
        words_total, characters_total = words_total + words, characters_total + characters
    new = {number: surface for number, surface in expanded.token_bytes.items() if number >= base.size}
    text_of = {number: surface.decode("utf-8", "replace") for number, surface in new.items()}
    return Report(
        files=tuple(reports),
        total=_file_report("all", words_total, characters_total, totals),
        added=expanded.size - base.size,
        unreachable=tuple(t for n, t in sorted(text_of.items()) if expanded.ids_of(t) != [n]),
        unused=tuple(text for number, text in sorted(text_of.items()) if number not in used),
    )


def _check_same_base(base: Base, expanded: Base) -> None:
    same = base.family == expanded.family and base.size <= expanded.size
    ours = expanded.token_bytes if same else {}
    if not same or any(ours.get(number) != surface for number, surface in base.token_bytes.items()):
        raise VocabError("the expanded tokenizer was not made from this base; give the base it was built on")


def _file_report(name: str, words: int, characters: int, tallies: Sequence[_Tally]) -> FileReport:
    base, expanded = (tally.measure(words, characters) for tally in tallies)
    return FileReport(name, words, characters, base, expanded)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch = []
    if batch:
        yield batch


def fertility_svg(report: Report) -> str:
    """Tokens a word before and after, file by file, as one SVG without any script or outside reference."""
    rows = [*report.files, report.total]
    most = max([row.base.tokens_per_word for row in rows] + [1.0])
    height, label, width = 44, 220, 420
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {label + width + 70} {height * len(rows) + 30}" '
        'font-family="sans-serif" font-size="13" role="img">',
        "<title>Tokens a word: base (grey) and expanded (blue)</title>",
    ]
    for i, row in enumerate(rows):
        top = 24 + i * height
        parts.append(f'<text x="{label - 8}" y="{top + 20}" text-anchor="end">{html.escape(row.name)}</text>')
        for offset, colour, measure in ((0, "#9aa0a6", row.base), (16, "#2563eb", row.expanded)):
            value, y = measure.tokens_per_word, top + offset
            length = width * value / most
            parts.append(
                f'<rect x="{label}" y="{y}" width="{length:.1f}" height="14" fill="{colour}"/>'
                f'<text x="{label + length + 6:.1f}" y="{y + 12}">{value:.2f}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"

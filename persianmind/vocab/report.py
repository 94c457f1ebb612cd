"""What an expansion does to text: tokens per word, characters per token, words left whole, dead pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persianmind.common.errors import VocabError
from persianmind.common.template import load_template
from persianmind.language import LanguageProfile
from persianmind.vocab.families.base import BaseTokenizer

_FOLDER = Path(__file__).parent
_BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class Measure:
    """One tokenizer on one text. `whole_words`: the part of the language's words that are one piece each."""

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


class _Sums:
    """Running sums of one tokenizer over one text."""

    def __init__(self, tokenizer: BaseTokenizer, word: re.Pattern[str], used: set[int]) -> None:
        self.tokenizer = tokenizer
        self.used = used
        self.tokens = 0
        self.script_words = 0
        self.whole_words = 0
        self._word = word
        self._whole: dict[str, bool] = {}

    def add(self, texts: Sequence[str]) -> None:
        for ids in self.tokenizer.encode(texts):
            self.tokens += len(ids)
            self.used.update(ids)
        for text in texts:
            for word in self._word.findall(text):
                self.script_words += 1
                self.whole_words += self._is_whole(word)

    def add_sums(self, other: _Sums) -> None:
        self.tokens += other.tokens
        self.script_words += other.script_words
        self.whole_words += other.whole_words

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
            _ratio(self.whole_words, self.script_words),
        )


def make_report(
    base: BaseTokenizer,
    expanded: BaseTokenizer,
    files: Mapping[str, Callable[[], Iterator[str]]],
    profile: LanguageProfile,
) -> Report:
    """Measures base and expanded tokenizer on every file of normalised documents, and on all together.

    Args:
        base: the tokenizer before.
        expanded: the tokenizer after.
        files: name -> what gives the file's documents.
        profile: says what a word of the language is.

    Raises:
        VocabError: `expanded` is no expansion of `base`.
    """
    _check_same_base(base, expanded)
    word = profile.script.word
    used: set[int] = set()
    reports: list[FileReport] = []
    totals = (_Sums(base, word, set()), _Sums(expanded, word, used))
    for name, texts in files.items():
        sums = (_Sums(base, word, set()), _Sums(expanded, word, used))
        words = characters = 0
        for batch in _batches(texts()):
            words += sum(len(text.split()) for text in batch)
            characters += sum(map(len, batch))
            for one in sums:
                one.add(batch)
        for total, one in zip(totals, sums, strict=True):
            total.add_sums(one)
        reports.append(_file_report(name, words, characters, sums))
    new_pieces = {
        token_id: piece.decode("utf-8", "backslashreplace")
        for token_id, piece in sorted(expanded.token_bytes.items())
        if token_id >= base.size
    }
    whole = {token_id: text for token_id, text in new_pieces.items() if _is_text(expanded, token_id)}
    all_words, all_characters = sum(r.words for r in reports), sum(r.characters for r in reports)
    return Report(
        files=tuple(reports),
        total=_file_report("all", all_words, all_characters, totals),
        added=expanded.size - base.size,
        unreachable=tuple(text for i, text in whole.items() if expanded.ids_of(text) != [i]),
        unused=tuple(text for i, text in new_pieces.items() if i not in used),
    )


def _is_text(tokenizer: BaseTokenizer, token_id: int) -> bool:
    """Whether a piece is whole characters; the beginning of one is reached where its rest is no piece."""
    try:
        tokenizer.token_bytes[token_id].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_same_base(base: BaseTokenizer, expanded: BaseTokenizer) -> None:
    same = base.family == expanded.family and base.size <= expanded.size
    ours = expanded.token_bytes if same else {}
    if not same or any(ours.get(i) != piece for i, piece in base.token_bytes.items()):
        raise VocabError("the expanded tokenizer was not made from this base; give the base it was built on")


def _file_report(name: str, words: int, characters: int, sums: Sequence[_Sums]) -> FileReport:
    base, expanded = (one.measure(words, characters) for one in sums)
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
    """Tokens per word before and after, file by file, as one SVG without any script or outside reference."""
    entries = [*report.files, report.total]
    most = max([entry.base.tokens_per_word for entry in entries] + [1.0])
    return load_template(_FOLDER, "fertility.svg.j2").render(entries=entries, most=most)

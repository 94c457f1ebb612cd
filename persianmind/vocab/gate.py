"""The exactness gate: what must hold before an expanded tokenizer is saved. Each check has its own error."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import ExactnessError
from persianmind.language.persian import LETTERS, ZWNJ
from persianmind.vocab.expansion import Gate, Piece
from persianmind.vocab.families.base import Base
from persianmind.vocab.foreign import foreign_samples
from persianmind.vocab.pieces import PERSIAN_CHARACTER, is_valid_piece_text

_ZWNJ_WORD = re.compile(f"[{LETTERS}]+(?:{ZWNJ}[{LETTERS}]+)+")
_ZWNJ_PROBES = ("می‌روم", "کتاب‌ها", "نمی‌خواسته‌ام", "خانه‌هایشان", "بین‌المللی", "۲۰‌ساله", "API‌های")
_SPACE_PROBES = tuple(f"{' ' * n}سلام{' ' * n}دنیا{' ' * n}" for n in (1, 2, 3, 7, 17, 40))
_MAX_ZWNJ_WORDS = 20_000


class HFTokenizer:
    """The expanded tokenizer as its users load it: AutoTokenizer on the folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.size = len(loaded)
        self._backend: Any = loaded.backend_tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without special tokens."""
        batch = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(ids), skip_special_tokens=False))


def check(
    base: Base, fast: HFTokenizer, slow: Base, pieces: Sequence[Piece], *, pad: bool, rows: Sequence[str]
) -> Gate:
    """Runs every check on an expanded tokenizer against its base.

    Args:
        fast: as its users load it. slow: its files as SentencePiece (or the same library) reads them.
        pieces: the new pieces, without the pad token.
        rows: normalised training documents to try.

    Raises:
        ExactnessError: the first check that fails, with an example.
    """
    _check_ids(base, fast, slow, pieces, pad)
    _check_boundaries(pieces)
    _check_reachable(slow, pieces)
    words = sorted({word for row in rows for word in _ZWNJ_WORD.findall(row)})[:_MAX_ZWNJ_WORDS]
    zwnj_words = [*_ZWNJ_PROBES, *words]
    _check_foreign(base, fast, foreign_samples())
    _check_round_trip(base, fast, zwnj_words)
    _check_round_trip(base, fast, [*rows, *_SPACE_PROBES])
    if base.family == "sentencepiece":
        _check_fast_equals_slow(fast, slow, [*rows, *zwnj_words, *_SPACE_PROBES, *foreign_samples()])
    return Gate(len(rows), len(foreign_samples()), len(pieces), len(zwnj_words))


def _check_ids(base: Base, fast: HFTokenizer, slow: Base, pieces: Sequence[Piece], pad: bool) -> None:
    expected = base.size + len(pieces) + pad
    if not fast.size == slow.size == expected:
        raise ExactnessError(
            f"the expanded tokenizer has {fast.size} ids (its files {slow.size}), {expected} were asked for"
        )
    if [piece.id for piece in pieces] != list(range(base.size, base.size + len(pieces))):
        raise ExactnessError(f"new ids do not follow the base's {base.size} without a gap")


def _check_boundaries(pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        if not is_valid_piece_text(piece.text):
            raise ExactnessError(f"the new piece {piece.text!r} spans a word boundary or is not Persian")


def unreachable(slow: Base, pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces that the tokenizer does not give for their own text."""
    return [piece for piece in pieces if slow.ids_of(piece.text) != [piece.id]]


def _check_reachable(slow: Base, pieces: Sequence[Piece]) -> None:
    if lost := unreachable(slow, pieces):
        example = lost[0].text
        raise ExactnessError(
            f"{len(lost)} of {len(pieces)} new pieces can never be produced, e.g. {example!r}"
        )


def _check_foreign(base: Base, fast: HFTokenizer, samples: Sequence[str]) -> None:
    for text, before, after in zip(samples, base.encode(samples), fast.encode(samples), strict=True):
        if before != after:
            raise ExactnessError(f"the expansion changes the ids of non-Persian text: {text[:80]!r}")


def _check_round_trip(base: Base, fast: HFTokenizer, rows: Sequence[str]) -> None:
    for row, ids in zip(rows, fast.encode(rows), strict=True):
        decoded = fast.decode(ids)
        if decoded != row and not _base_loses_it_too(base, row, decoded):
            place = next((i for i, (a, b) in enumerate(zip(row, decoded, strict=False)) if a != b), len(row))
            near = row[max(0, place - 20) : place + 20]
            raise ExactnessError(f"decode(encode(x)) differs from x near {near!r}")


def _base_loses_it_too(base: Base, row: str, decoded: str) -> bool:
    """Whether the loss is the base's own and touches no Persian: a byte it lacks, its NFC of Latin text."""
    if decoded != base.decode(base.encode([row])[0]):
        return False
    persian: Callable[[str], list[str]] = PERSIAN_CHARACTER.findall
    return persian(unicodedata.normalize("NFC", row)) == persian(decoded)


def _check_fast_equals_slow(fast: HFTokenizer, slow: Base, rows: Sequence[str]) -> None:
    for row, a, b in zip(rows, fast.encode(rows), slow.encode(rows), strict=True):
        if a != b:
            raise ExactnessError(f"tokenizer.json and tokenizer.model give different ids for {row[:80]!r}")

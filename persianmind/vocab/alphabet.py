"""Characters that a SentencePiece base spells in bytes: whole ones become its first new pieces.

SentencePiece starts from characters, so a character of three bytes that its vocabulary lacks cannot be put
together by joining pairs: two of its bytes are no text. (Byte-level BPE joins bytes; see `joins_bytes`.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.learn import Word

# Of the text's characters that are the script's, as SentencePiece's trainer has it by default.
CHARACTER_COVERAGE = 0.9995
MIN_COUNT = 2


@dataclass(frozen=True)
class Alphabet:
    """The base with characters added.

    pieces: (token bytes, count) of each, ids from the base's size on. words, token_bytes: what training goes
    on from.
    """

    pieces: tuple[tuple[bytes, int], ...]
    words: Mapping[Word, int]
    token_bytes: Mapping[int, bytes]


def with_alphabet(
    base: BaseTokenizer,
    units: Mapping[str, int],
    limit: int,
    is_valid_piece: Callable[[bytes], bool],
    order: Mapping[bytes, int] | None = None,
) -> Alphabet:
    """Adds the characters that the text needs and pairs cannot make, most frequent first.

    Args:
        base: the tokenizer to go on from.
        units: training units and how often each occurs.
        limit: at most so many characters.
        is_valid_piece: whether these bytes may be a piece.
        order: when given, the only pieces wanted, smallest value first.
    """
    words = base.segment(units)
    if base.joins_bytes:
        return Alphabet((), words, base.token_bytes)
    counts: Counter[str] = Counter()
    for unit, count in units.items():
        for character in unit:
            counts[character] += count
    own = {one: count for one, count in counts.items() if is_valid_piece(one.encode("utf-8", "replace"))}
    missing = {one: count for one, count in own.items() if len(base.ids_of(one)) > 2}
    if order is None:
        chosen = _covering(missing, total=sum(own.values()))
    else:
        chosen = sorted(
            (one for one in missing if one.encode() in order), key=lambda one: order[one.encode()]
        )
    chosen = chosen[:limit]
    id_of = {tuple(base.ids_of(one)): base.size + i for i, one in enumerate(chosen)}
    added = {base.size + i: one.encode("utf-8") for i, one in enumerate(chosen)}
    return Alphabet(
        tuple((one.encode("utf-8"), missing[one]) for one in chosen),
        _replaced(words, id_of) if id_of else words,
        {**base.token_bytes, **added},
    )


def _covering(missing: Mapping[str, int], total: int) -> list[str]:
    """The most frequent ones, until all but a few in ten thousand characters of the text are covered."""
    left, chosen = sum(missing.values()), []
    for one, count in sorted(missing.items(), key=lambda item: (-item[1], item[0])):
        if left <= (1 - CHARACTER_COVERAGE) * total or count < MIN_COUNT:
            break
        chosen.append(one)
        left -= count
    return chosen


def _replaced(words: Mapping[Word, int], id_of: Mapping[Word, int]) -> dict[Word, int]:
    """The words with runs of byte ids as one id each; UTF-8 begins no character inside another."""
    starts = {run[0] for run in id_of}
    lengths = sorted({len(run) for run in id_of}, reverse=True)
    found: Counter[Word] = Counter()
    for word, count in words.items():
        if starts.isdisjoint(word):
            found[word] += count
            continue
        ids: list[int] = []
        place = 0
        while place < len(word):
            size = next((n for n in lengths if word[place : place + n] in id_of), 0)
            ids.append(id_of[word[place : place + size]] if size else word[place])
            place += size or 1
        found[tuple(ids)] += count
    return found

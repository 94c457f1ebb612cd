"""Continued BPE: learn new pieces on top of a base tokenizer's own segmentation.

Training from scratch and appending the result (the usual way) gives pieces that the base's merges make
unreachable. Here the words are first segmented by the base; every new piece then joins two symbols that
stand side by side *after* all earlier merges, so it is reachable by construction and ranks below the base.

Pieces are UTF-8 bytes; a leading 0x20 marks the start of a word. Time is that of incremental BPE: each
merge touches only the words that hold it, and in them only the pairs at its joins.
"""

from __future__ import annotations

import gc
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from persianmind.common.progress import count_work

Word = tuple[int, ...]


@dataclass(frozen=True)
class Learned:
    """New pieces, most useful first, and how each is joined.

    pieces: (token bytes, count at the time it was chosen); piece i has id first_id + i.
    merges: (left id, right id, result id) in the order in which they must rank, all below the base's.
    """

    first_id: int
    pieces: tuple[tuple[bytes, int], ...]
    merges: tuple[tuple[int, int, int], ...]


@dataclass
class _Candidate:
    """All adjacent pairs that join to the same bytes."""

    joined: bytes
    count: int = 0
    words: set[int] = field(default_factory=set)
    pairs: dict[tuple[int, int], int] = field(default_factory=dict)


class _State:
    """Words as symbol lists, with the counts of all valid pairs kept up to date."""

    def __init__(
        self,
        words: Mapping[Word, int],
        token_bytes: Mapping[int, bytes],
        is_valid_piece: Callable[[bytes], bool],
    ) -> None:
        ordered = sorted(words.items())  # the order of reading must not matter
        self.words = [list(word) for word, _ in ordered]
        self.counts = [count for _, count in ordered]
        self.token_bytes = dict(token_bytes)
        self._is_valid_piece = is_valid_piece
        self._of_pair: dict[tuple[int, int], _Candidate | None] = {}
        self.of_bytes: dict[bytes, _Candidate] = {}
        self.changed: set[bytes] = set()
        for index, word in enumerate(self.words):
            for pair in itertools.pairwise(word):
                self._add(pair, index)

    def _add(self, pair: tuple[int, int], index: int) -> None:
        """One more occurrence of a pair, in the word at `index`."""
        candidate = self._candidate(pair)
        if candidate is not None:
            count = self.counts[index]
            candidate.count += count
            candidate.pairs[pair] = candidate.pairs.get(pair, 0) + count
            candidate.words.add(index)
            self.changed.add(candidate.joined)

    def _remove(self, pair: tuple[int, int], index: int) -> None:
        """One occurrence less; the heap finds out when it meets the old count."""
        candidate = self._of_pair[pair]
        if candidate is not None:
            candidate.count -= self.counts[index]
            candidate.pairs[pair] -= self.counts[index]

    def _candidate(self, pair: tuple[int, int]) -> _Candidate | None:
        try:
            return self._of_pair[pair]
        except KeyError:
            joined = self.token_bytes[pair[0]] + self.token_bytes[pair[1]]
            found: _Candidate | None = None
            if self._is_valid_piece(joined):
                found = self.of_bytes.setdefault(joined, _Candidate(joined))
            self._of_pair[pair] = found
            return found

    def merge(self, candidate: _Candidate, result: int) -> list[tuple[int, int]]:
        """Joins the candidate's pairs everywhere, left to right; returns the pairs that occurred."""
        pairs = sorted(pair for pair, count in candidate.pairs.items() if count > 0)
        wanted = set(pairs)
        for index in sorted(candidate.words):
            self._join(index, wanted, result)
        candidate.count = 0
        candidate.pairs.clear()
        candidate.words.clear()
        return pairs

    def _join(self, index: int, pairs: set[tuple[int, int]], result: int) -> None:
        """Joins `pairs` in one word and recounts its neighbours at each join; all else stays as it was."""
        word, joined = self.words[index], list[int]()
        position, end, after_join = 0, len(word), False
        while position < end:
            symbol, width = word[position], 1
            if position + 1 < end and (symbol, word[position + 1]) in pairs:
                symbol, width = result, 2
            if joined and (after_join or width == 2):
                self._remove((word[position - 1], word[position]), index)
                self._add((joined[-1], symbol), index)
            joined.append(symbol)
            position, after_join = position + width, width == 2
        self.words[index] = joined


def continue_bpe(
    words: Mapping[Word, int],
    token_bytes: Mapping[int, bytes],
    *,
    first_id: int,
    limit: int,
    is_valid_piece: Callable[[bytes], bool],
    order: Mapping[bytes, int] | None = None,
    min_count: int = 2,
) -> Learned:
    """Learns up to `limit` new pieces from words segmented into base ids.

    A pair that joins to an existing piece, of the base or a new one, costs no new token: it is joined at
    once (SentencePiece does that by itself; byte-level BPE gets one more merge).

    Args:
        words: word as base ids -> how often it occurs.
        token_bytes: id -> bytes, for every id of the base that is a piece of text.
        first_id: id of the first new piece.
        limit: number of new pieces wanted.
        is_valid_piece: whether these bytes may be a piece.
        order: when given, the only pieces wanted, smallest value first instead of most frequent first.
        min_count: a pair that occurs less often becomes no piece; with `order`, one occurrence is enough.

    Returns:
        The pieces in the order in which they were chosen; fewer than `limit` when no pair is left.
    """
    with _without_cycle_search():
        if order is not None:
            return _learn(
                words, token_bytes, first_id, limit, order.__contains__, lambda c: order[c.joined], 1
            )
        return _learn(words, token_bytes, first_id, limit, is_valid_piece, lambda c: -c.count, min_count)


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Millions of live pairs and no cycle among them: Python's search for some took a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _learn(
    words: Mapping[Word, int],
    token_bytes: Mapping[int, bytes],
    first_id: int,
    limit: int,
    is_valid_piece: Callable[[bytes], bool],
    priority: Callable[[_Candidate], int],
    min_count: int,
) -> Learned:
    state = _State(words, token_bytes, is_valid_piece)
    known = {piece: token_id for token_id, piece in token_bytes.items()}
    pieces: list[tuple[bytes, int]] = []
    merges: list[tuple[int, int, int]] = []
    heap: list[tuple[int, bytes]] = []
    while len(pieces) < limit or state.changed:
        count_work()
        free = sorted(joined for joined in state.changed if joined in known)
        if free:
            state.changed.difference_update(free)
            for joined in free:
                pairs = state.merge(state.of_bytes[joined], known[joined])
                merges.extend((left, right, known[joined]) for left, right in pairs)
            continue
        for joined in state.changed:
            heapq.heappush(heap, (priority(state.of_bytes[joined]), joined))
        state.changed.clear()
        best = _pop_best(heap, state.of_bytes, known, priority)
        if len(pieces) == limit or best is None or best.count < min_count:
            break
        result = first_id + len(pieces)
        known[best.joined] = result
        state.token_bytes[result] = best.joined
        pieces.append((best.joined, best.count))
        merges.extend((left, right, result) for left, right in state.merge(best, result))
        state.changed.discard(best.joined)
    return Learned(first_id, tuple(pieces), tuple(merges))


def _pop_best(
    heap: list[tuple[int, bytes]],
    candidates: Mapping[bytes, _Candidate],
    known: Mapping[bytes, int],
    priority: Callable[[_Candidate], int],
) -> _Candidate | None:
    """The best candidate, ties by its bytes; entries whose priority has changed are put right first."""
    while heap:
        stored, joined = heapq.heappop(heap)
        candidate = candidates[joined]
        if joined in known or candidate.count <= 0:
            continue
        if stored == priority(candidate):
            return candidate
        heapq.heappush(heap, (priority(candidate), joined))
    return None

"""Log-likelihoods of continuations. What several of them begin with is read once.

Requests become rows of ids, sorted, so that rows with a common beginning stand together: a passage with its
questions, a question with its candidates. A beginning is read once and its keys and values are kept; the rest
of its rows goes behind it in batches, padded behind, where causal attention does not look.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from persianmind.evaluate.log_probs import TokenLogProbs
from persianmind.evaluate.windows import Window

MIN_SHARED = 16  # tokens; a shorter common beginning is read again with every row
MIN_SAVED = 64  # tokens that a common beginning must save in all
MAX_BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """context, continuation: ids, at least one each."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """log_likelihood: summed, nats, at most 0. greedy: whether each token was the likeliest at its place."""

    log_likelihood: float
    tokens: int
    greedy: bool


@dataclass(slots=True)
class _Row:
    """ids: of a context and all but the last id of its continuation. asked: (request, place whose next tokens
    are asked for, those tokens)."""

    ids: tuple[int, ...]
    asked: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)

    @property
    def first_asked(self) -> int:
        return min(place for _, place, _ in self.asked)


class Likelihood:
    """A causal LM as what gives likelihoods. It must be in `generation_mode`.

    max_batch_tokens: of one pass, those in the cache included; a row that is longer goes alone.
    """

    def __init__(
        self,
        causal_lm: Any,
        *,
        vocab_size: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._device = causal_lm.device
        self._config = causal_lm.config
        self._log_probs = TokenLogProbs(causal_lm, vocab_size)
        self._max_batch_tokens = max_batch_tokens
        self._on_progress = on_progress

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """The likelihood of each continuation behind its context, in the order of the requests."""
        found: dict[int, Scored] = {}
        self._walk(_rows(requests), None, 0, found)
        return [found[number] for number in range(len(requests))]

    def windows(self, windows: Sequence[Window]) -> list[float]:
        """The negative log-likelihood of what each window predicts, nats."""
        scored = self.score([Request(window.given, window.predicted) for window in windows])
        return [-one.log_likelihood for one in scored]

    def _walk(self, rows: Sequence[_Row], cache: Any, done: int, found: dict[int, Scored]) -> None:
        """Rows whose first `done` ids are in the cache."""
        alone: list[_Row] = []
        for group, shared in _groups(rows, done):
            if (len(group) - 1) * (shared - done) < MIN_SAVED:
                alone += group
                continue
            longer = self._new_cache() if cache is None else copy.deepcopy(cache)
            self._read(group[0].ids[done:shared], longer, done)
            self._walk(group, longer, shared, found)
        for batch in self._batches(alone, done):
            self._score_batch(batch, cache, done, found)

    def _read(self, ids: Sequence[int], cache: Any, done: int) -> None:
        self._on_progress()
        ids_1L = torch.tensor([list(ids)], device=self._device)
        nothing = torch.zeros(0, dtype=torch.int64, device=self._device)
        self._log_probs.run(ids_1L, done, (nothing, nothing), cache)

    def _score_batch(self, rows: Sequence[_Row], cache: Any, done: int, found: dict[int, Scored]) -> None:
        self._on_progress()
        longest = max(len(row.ids) for row in rows) - done
        ids_BL = torch.zeros(len(rows), longest, dtype=torch.int64)
        for number, row in enumerate(rows):
            ids_BL[number, : len(row.ids) - done] = torch.tensor(row.ids[done:])
        row_P: list[int] = []
        place_P: list[int] = []
        owners: list[tuple[int, int]] = []  # request, how many tokens are asked for
        places: list[int] = []
        tokens: list[int] = []
        for number, row in enumerate(rows):
            first, base = row.first_asked, len(row_P)
            row_P += [number] * (len(row.ids) - first)
            place_P += range(first - done, len(row.ids) - done)
            for request, place, own in row.asked:
                owners.append((request, len(own)))
                places += range(base + place - first, base + place - first + len(own))
                tokens += own
        wanted = (torch.tensor(row_P, device=self._device), torch.tensor(place_P, device=self._device))
        logits = self._log_probs.run(ids_BL.to(self._device), done, wanted, _branches(cache, len(rows)))
        values_N, likeliest_N = logits.of_tokens(
            torch.tensor(places, device=self._device), torch.tensor(tokens, device=self._device)
        )
        at = 0
        for request, count in owners:
            mine = slice(at, at + count)
            found[request] = Scored(float(values_N[mine].sum()), count, bool(likeliest_N[mine].all()))
            at += count

    def _batches(self, rows: Sequence[_Row], done: int) -> Iterator[list[_Row]]:
        """Rows of like length, longest first: what does not fit in memory fails at once."""
        batch: list[_Row] = []
        for row in sorted(rows, key=lambda one: len(one.ids), reverse=True):
            longest = len(batch[0].ids) if batch else len(row.ids)
            if batch and (len(batch) + 1) * longest > self._max_batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._config)


def _rows(requests: Sequence[Request]) -> list[_Row]:
    """One row for all requests that read the same ids (the letters of a question), sorted."""
    rows: dict[tuple[int, ...], _Row] = {}
    for number, request in enumerate(requests):
        ids = request.context + request.continuation[:-1]
        row = rows.setdefault(ids, _Row(ids))
        row.asked.append((number, len(request.context) - 1, request.continuation))
    return [rows[ids] for ids in sorted(rows)]


def _groups(rows: Sequence[_Row], done: int) -> Iterator[tuple[list[_Row], int]]:
    """Neighbours that share `MIN_SHARED` ids beyond `done`, and how many they share in all; the ids that are
    asked about stay behind it."""
    group: list[_Row] = []
    shared = done
    for row in rows:
        if group:
            common = min(_common(group[0].ids, row.ids, done), shared, row.first_asked)
            if common >= done + MIN_SHARED:
                group.append(row)
                shared = common
                continue
            yield group, shared
        group, shared = [row], row.first_asked
    if group:
        yield group, shared


def _common(first: Sequence[int], second: Sequence[int], start: int) -> int:
    at, end = start, min(len(first), len(second))
    while at < end and first[at] == second[at]:
        at += 1
    return at


def _branches(cache: Any, count: int) -> Any:
    """The cache once for each row."""
    if cache is None:
        return None
    own = copy.deepcopy(cache)
    if count > 1:
        own.batch_repeat_interleave(count)
    return own

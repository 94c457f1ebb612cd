"""Raw records to tokenised documents, batch by batch: the part of a build that worker processes share.

A batch is a pure function of its records and the recipe; batches come back in reading order. Their borders
depend on the records alone, so neither the number of workers nor a restart changes a byte of the result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from persianmind.data.build.dialogues import InstructionEncoder
from persianmind.tokenizer import FolderTokenizer, Tokens
from persianmind.recipe import Recipe
from persianmind.text.decode import Rejected, decode_record
from persianmind.text.documents import Cleaner, Dialogue, Document, Taken
from persianmind.text.dedup import NearSignature, near_signature, text_fingerprint
from persianmind.text.records import Position, RawRecord, read_records
from persianmind.text.record import Record

BATCH_RECORDS = 512
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """One document ready to be packed. near: its MinHash signature, where the recipe asks for one."""

    place: str
    sample: str
    characters: int
    fingerprint: int
    tokens: Tokens
    targets: npt.NDArray[np.bool_] | None
    near: NearSignature | None


@dataclass(slots=True)
class Prepared:
    """What became of one batch of records. `after`: the position once it is consumed."""

    after: Position
    records: int = 0
    held_out: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    documents: list[Tokenised] = field(default_factory=list)


class Preparer:
    """Decodes, cleans and tokenises the records of one source."""

    def __init__(self, recipe: Recipe, source_name: str, tokenizer_dir: Path) -> None:
        self._name = source_name
        self._recipe = recipe
        self._cleaner = Cleaner(recipe, source_name)
        self._tokenizer = FolderTokenizer(tokenizer_dir, fast=recipe.data.fast_tokenizer)
        self._instructions = InstructionEncoder(self._tokenizer, recipe.data.prompt)

    def prepare(self, records: list[RawRecord]) -> Prepared:
        """One batch; `records` is not empty."""
        batch = Prepared(after=records[-1].after, records=len(records))
        clean: list[Document | Dialogue] = []
        for record in records:
            row = decode_record(self._name, self._cleaner.source, record)
            if isinstance(row, Rejected):
                batch.rejected.append(row)
            elif self._cleaner.is_held_out(row.key):
                batch.held_out += 1
            else:
                document = self._clean(row)
                if isinstance(document, Taken):
                    batch.taken.append(document)
                else:
                    clean.append(document)
        for document, (tokens, targets) in zip(clean, self._tokenise(clean), strict=True):
            if targets is not None and len(tokens) > self._recipe.data.seq_len:
                batch.taken.append(
                    Taken(document.place, "instruction_longer_than_row", document.texts[0][:160])
                )
            else:
                batch.documents.append(self._tokenised(document, tokens, targets))
        return batch

    def _clean(self, row: Record) -> Document | Dialogue | Taken:
        document = self._cleaner.clean(row)
        if isinstance(document, Dialogue) and self._instructions.forges_turns(document.messages):
            return Taken(document.place, "special_token_in_text", document.texts[0][:160])
        return document

    def _tokenised(
        self, document: Document | Dialogue, tokens: Tokens, targets: npt.NDArray[np.bool_] | None
    ) -> Tokenised:
        quality = self._recipe.quality
        near = None
        if quality.enabled and quality.near_duplicates:
            near = near_signature("\n".join(document.texts))
        fingerprint = text_fingerprint(*document.texts)
        characters = sum(map(len, document.texts))
        sample = document.texts[0][:160]
        return Tokenised(document.place, sample, characters, fingerprint, tokens, targets, near)

    def _tokenise(
        self, documents: list[Document | Dialogue]
    ) -> list[tuple[Tokens, npt.NDArray[np.bool_] | None]]:
        if self._cleaner.source.kind == "text":
            texts = ["\n".join(document.texts) for document in documents]
            return [(tokens, None) for tokens in self._tokenizer.encode_documents(texts)]
        dialogues = [document.messages for document in documents if isinstance(document, Dialogue)]
        return list(self._instructions.encode(dialogues))


def record_batches(records: Iterator[RawRecord]) -> Iterator[list[RawRecord]]:
    """Groups of records of bounded number and size."""
    batch: list[RawRecord] = []
    size_bytes = 0
    for record in records:
        batch.append(record)
        size_bytes += len(record.payload) if isinstance(record.payload, bytes) else 1024
        if len(batch) >= BATCH_RECORDS or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def prepared_batches(
    recipe: Recipe, source_name: str, tokenizer_dir: Path, start: Position, workers: int = 1
) -> Iterator[Prepared]:
    """Prepared batches in reading order, from a position on. `workers` > 1 spreads them over processes."""
    batches = record_batches(read_records(source_name, recipe.sources[source_name], start))
    if workers <= 1:
        preparer = Preparer(recipe, source_name, tokenizer_dir)
        for records in batches:
            yield preparer.prepare(records)
        return
    # spawn, not fork: the tokenizer library keeps threads, which a fork would leave half alive
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(recipe, source_name, tokenizer_dir),
    )
    pending: deque[Future[Prepared]] = deque()
    try:
        for records in batches:
            pending.append(pool.submit(_prepare_in_worker, records))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: Preparer | None = None


def _start_worker(recipe: Recipe, source_name: str, tokenizer_dir: Path) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a worker
    _worker = Preparer(recipe, source_name, tokenizer_dir)


def _prepare_in_worker(records: list[RawRecord]) -> Prepared:
    if _worker is None:
        raise RuntimeError("the worker was not started through _start_worker")
    return _worker.prepare(records)

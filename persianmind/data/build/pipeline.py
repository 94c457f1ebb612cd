"""Raw records to tokenised documents, batch by batch: the part of a build that worker processes share.

A batch is a pure function of its records and the job; batches come back in reading order. Their borders
depend on the records alone, so neither the number of workers nor a restart changes a byte of the result.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from persianmind.data.build.dialogues import InstructionEncoder, Targets
from persianmind.data.build.source import SourceJob
from persianmind.text.clean import SAMPLE_CHARACTERS, Dialogue, Document, clean_record, drop
from persianmind.text.decode import decode_record
from persianmind.text.dedup import text_fingerprint, wanted_signature
from persianmind.text.near import NearSignature
from persianmind.text.record import Dropped, Position, RawRecord, Rejected
from persianmind.text.stream import read_records
from persianmind.tokenizer import FolderTokenizer, Tokens

BATCH_RECORDS = 512
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class TokenisedDocument:
    """One document ready to be packed. signature: for near duplicates, where they are looked for."""

    place: str
    sample: str
    characters: int
    utf8_bytes: int
    fingerprint: int
    tokens: Tokens
    targets: Targets | None
    signature: NearSignature | None


@dataclass(slots=True)
class TokenisedBatch:
    """What became of one batch of records.

    after: the position once it is consumed. left_out: what kept dialogues held beside their turns, by name.
    """

    after: Position
    records: int = 0
    held_out: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    documents: list[TokenisedDocument] = field(default_factory=list)


class Pipeline:
    """The records of one source, decoded, split, cleaned and tokenised in turn."""

    def __init__(self, job: SourceJob) -> None:
        self._spec = job.spec
        self._seq_len = job.data.seq_len
        self._tokenizer = FolderTokenizer(job.tokenizer, fast=job.data.fast_tokenizer)
        form = job.form(self._tokenizer) if job.spec.source.is_dialogue else None
        self._instructions = None if form is None else InstructionEncoder(form)
        # Tokens of a document of text that are none of its text's.
        self.tokens_added = 0 if form else 1 + (self._tokenizer.bos_id is not None)

    def run(self, raw_records: list[RawRecord]) -> TokenisedBatch:
        """One batch; `raw_records` is not empty. They are taken out of it: long ones are not held on."""
        batch = TokenisedBatch(after=raw_records[-1].after, records=len(raw_records))
        raw_records.reverse()
        clean: list[Document | Dialogue] = []
        while raw_records:
            if (document := self._clean(raw_records.pop(), batch)) is not None:
                clean.append(document)
        for document, encoded in zip(clean, self.tokenise(clean), strict=True):
            if isinstance(encoded, str):
                batch.dropped.append(drop(document, encoded))
                continue
            tokens, targets = encoded
            if targets is not None and len(tokens) > self._seq_len:
                batch.dropped.append(drop(document, "instruction_longer_than_sequence"))
            else:
                batch.documents.append(self._tokenised(document, tokens, targets))
                batch.left_out.update(document.left_out if isinstance(document, Dialogue) else ())
        return batch

    def _clean(self, raw: RawRecord, batch: TokenisedBatch) -> Document | Dialogue | None:
        """The clean document of a record; None where the batch says what became of it."""
        record = decode_record(self._spec.name, self._spec.source, raw)
        if isinstance(record, Rejected):
            batch.rejected.append(record)
            return None
        if self._spec.is_held_out(record.key):
            batch.held_out += 1
            return None
        document = clean_record(record, self._spec)
        if isinstance(document, Dropped):
            batch.dropped.append(document)
            return None
        return document

    def _tokenised(
        self, document: Document | Dialogue, tokens: Tokens, targets: Targets | None
    ) -> TokenisedDocument:
        return TokenisedDocument(
            place=document.place,
            sample=document.texts[0][:SAMPLE_CHARACTERS],
            characters=sum(map(len, document.texts)),
            utf8_bytes=sum(len(text.encode("utf-8")) for text in document.texts),
            fingerprint=text_fingerprint(*document.texts),
            tokens=tokens,
            targets=targets,
            signature=wanted_signature(document.texts, self._spec.quality),
        )

    def tokenise(self, documents: Sequence[Document | Dialogue]) -> list[tuple[Tokens, Targets | None] | str]:
        """Tokens and targets of each document; for one that is skipped, the reason."""
        if self._instructions is None:
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


def tokenised_batches(job: SourceJob, start: Position, workers: int = 1) -> Iterator[TokenisedBatch]:
    """Batches in reading order, from a position on. `workers` > 1 spreads them over processes."""
    batches = record_batches(read_records(job.spec.name, job.spec.source, start))
    if workers <= 1:
        pipeline = Pipeline(job)
        for records in batches:
            yield pipeline.run(records)
        return
    # spawn, not fork: the tokenizer library keeps threads, which a fork would leave half alive
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(job,)
    )
    pending: deque[Future[TokenisedBatch]] = deque()
    try:
        for records in batches:
            pending.append(pool.submit(_run_in_worker, records))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_pipeline: Pipeline | None = None


def _start_worker(job: SourceJob) -> None:
    global _pipeline
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core per worker
    _pipeline = Pipeline(job)


def _run_in_worker(records: list[RawRecord]) -> TokenisedBatch:
    if _pipeline is None:
        raise RuntimeError("the worker was not started through _start_worker")
    return _pipeline.run(records)

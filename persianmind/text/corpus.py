"""The training split of sources as clean documents: what the vocabulary is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from persianmind.common.errors import EmptyCorpusError
from persianmind.text.clean import Dialogue, Document, clean_record
from persianmind.text.dedup import DuplicateRule, text_fingerprint
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Dropped
from persianmind.text.spec import SourceSpec
from persianmind.text.stream import stream_records


def clean_documents(
    spec: SourceSpec, *, held_out: bool, counts: Quarantine | None = None
) -> Iterator[Document | Dialogue]:
    """The clean documents of one source, in reading order: of its held-out split, or of the rest.

    counts: of the records read, bad ones too.
    """
    for record in stream_records(spec.name, spec.source, counts):
        if spec.is_held_out(record.key) == held_out:
            document = clean_record(record, spec)
            if not isinstance(document, Dropped):
                yield document


def training_documents(spec: SourceSpec, evaluated: frozenset[int]) -> Iterator[Document | Dialogue]:
    """The clean documents of one source's training split, exact duplicates left out, in reading order.

    What was passed over is said at the end.

    evaluated: fingerprints of the held-out texts (heldout.held_out_fingerprints).
    """
    duplicates = DuplicateRule(spec.quality, evaluated)
    counts = Quarantine()
    for document in clean_documents(spec, held_out=False, counts=counts):
        if duplicates.reason(text_fingerprint(*document.texts)) is None:
            yield document
    counts.warn(f"sources.{spec.name}")


def training_texts(specs: Iterable[SourceSpec], evaluated: frozenset[int]) -> Iterator[str]:
    """The texts of the training split of several sources: what the vocabulary is trained on.

    Instruction records give each of their turns. Held-out documents are not among them.
    """
    for spec in specs:
        for document in training_documents(spec, evaluated):
            yield from document.texts


def check_usable(specs: Iterable[SourceSpec]) -> None:
    """Reads each source up to its first usable document: an empty corpus is found before anything is written.

    Raises:
        EmptyCorpusError: a source has none; the message counts what was read.
    """
    for spec in specs:
        counts = Quarantine()
        records = stream_records(spec.name, spec.source, counts)
        if not any(not isinstance(clean_record(record, spec), Dropped) for record in records):
            raise EmptyCorpusError(
                f"sources.{spec.name} has no usable record ({counts.seen} read, {counts.total_rejected} of "
                "them damaged); check its uri, its text_field and the limits under `quality`"
            )

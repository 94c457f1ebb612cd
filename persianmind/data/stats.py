"""What sources hold, in numbers: lengths, languages, duplicates, tokens per word, tokens."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from persianmind.data.build.pipeline import Pipeline
from persianmind.data.build.source import source_job
from persianmind.recipe import Recipe
from persianmind.text.clean import Dialogue, Document, clean_record
from persianmind.text.decode import decode_record
from persianmind.text.dedup import text_fingerprint
from persianmind.text.filters import language_scores
from persianmind.text.record import Dropped, Rejected
from persianmind.text.spec import SourceSpec
from persianmind.text.stream import check_sources, read_records

BATCH_DOCUMENTS = 256
# Languages are told of one document in so many, by its beginning: telling takes longer than all the rest.
LANGUAGE_EVERY, LANGUAGE_CHARACTERS, MAX_LANGUAGE_SAMPLES = 10, 500, 2000
PERCENTILES = (50, 90, 99, 100)
STATS_HEADER = [
    "source", "documents", "words", "tokens", "targets", "tokens per word", "tokens: median, 90%, 99%, most",
    "over seq_len", "duplicates", "of other sources", "languages",
]  # fmt: skip


@dataclass(slots=True)
class SourceStats:
    """Of the documents of one source's training split, as they are trained on.

    words: between white space. tokens: begin- and end-of-text too. tokens_per_word: without these.
    token_percentiles: of the lengths, at PERCENTILES. documents_over_seq_len: of the shortest sequences that
    a stage reads it in; cut into pieces where they are text, left out where they are dialogues. duplicates:
    documents whose text stood before in this source; duplicates_of_other_sources: in an earlier one.
    languages: share of `language_samples` documents.
    """

    documents: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    targets: int = 0
    tokens_per_word: float | None = None
    token_percentiles: list[int] = field(default_factory=list)
    documents_over_seq_len: int = 0
    duplicates: int = 0
    duplicates_of_other_sources: int = 0
    languages: dict[str, float] = field(default_factory=dict)
    language_samples: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def source_stats(recipe: Recipe, tokenizer: Path) -> dict[str, SourceStats]:
    """Reads every source of a recipe to its end. Writes nothing.

    Raises:
        SourceError: a source cannot be read.
        DataError: this tokenizer cannot write dialogues.
    """
    check_sources(recipe.sources)
    seen: dict[int, str] = {}  # fingerprint -> the first source that has it
    found = {}
    for name in recipe.sources:
        shortest = min(recipe.packings_of(name), key=lambda packing: packing.seq_len)
        job = source_job(recipe, shortest, tokenizer=tokenizer, out=Path(), heldout=Path())
        found[name] = _of_source(job.spec, Pipeline(job), shortest.seq_len, seen)
    return found


def stats_table(found: Mapping[str, SourceStats]) -> list[list[str]]:
    """A row per source, as STATS_HEADER names them."""
    return [
        [
            name,
            f"{one.documents:,}",
            f"{one.words:,}",
            f"{one.tokens:,}",
            f"{one.targets:,}",
            "-" if one.tokens_per_word is None else f"{one.tokens_per_word:.2f}",
            ", ".join(f"{length:,}" for length in one.token_percentiles),
            f"{one.documents_over_seq_len:,}",
            f"{one.duplicates:,}",
            f"{one.duplicates_of_other_sources:,}",
            ", ".join(f"{code} {share:.0%}" for code, share in islice(one.languages.items(), 3)),
        ]
        for name, one in found.items()
    ]


def _of_source(spec: SourceSpec, pipeline: Pipeline, seq_len: int, seen: dict[int, str]) -> SourceStats:
    stats, lengths, languages = SourceStats(), array("I"), Counter[str]()
    skipped: Counter[str] = Counter()
    text_tokens = 0
    documents = _documents(spec, skipped)
    while batch := list(islice(documents, BATCH_DOCUMENTS)):
        for document, encoded in zip(batch, pipeline.tokenise(batch), strict=True):
            if isinstance(encoded, str):
                skipped[encoded] += 1
                continue
            _count_text(document, spec.name, stats, languages, seen)
            tokens, targets = encoded
            lengths.append(len(tokens))
            text_tokens += len(tokens) - pipeline.tokens_added
            stats.targets += len(tokens) - 1 if targets is None else int(targets.sum())
    stats.tokens = sum(lengths)
    if stats.words:
        stats.tokens_per_word = text_tokens / stats.words
    if lengths:
        stats.token_percentiles = [int(one) for one in np.percentile(lengths, PERCENTILES, method="nearest")]
    stats.documents_over_seq_len = sum(length > seq_len for length in lengths)
    stats.language_samples = languages.total()
    stats.languages = {code: count / languages.total() for code, count in languages.most_common()}
    stats.skipped = dict(skipped.most_common())
    return stats


def _documents(spec: SourceSpec, skipped: Counter[str]) -> Iterator[Document | Dialogue]:
    for raw in read_records(spec.name, spec.source):
        record = decode_record(spec.name, spec.source, raw)
        if isinstance(record, Rejected):
            skipped[record.reason] += 1
        elif spec.is_held_out(record.key):
            skipped["held_out"] += 1
        else:
            document = clean_record(record, spec)
            if isinstance(document, Dropped):
                skipped[document.reason] += 1
            else:
                yield document


def _count_text(
    document: Document | Dialogue,
    name: str,
    stats: SourceStats,
    languages: Counter[str],
    seen: dict[int, str],
) -> None:
    stats.documents += 1
    stats.characters += sum(map(len, document.texts))
    stats.words += sum(len(text.split()) for text in document.texts)
    known = seen.setdefault((fingerprint := text_fingerprint(*document.texts)), "")
    stats.duplicates += known == name
    stats.duplicates_of_other_sources += known not in ("", name)
    seen[fingerprint] = known or name
    if stats.documents % LANGUAGE_EVERY == 1 and languages.total() < MAX_LANGUAGE_SAMPLES:
        text = " ".join(document.texts)[:LANGUAGE_CHARACTERS]
        scores = language_scores(" ".join(text.split()))
        languages[max(scores, key=lambda code: scores[code]) if scores else "unknown"] += 1

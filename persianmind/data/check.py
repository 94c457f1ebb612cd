"""The data doctor: reads a source to its end as a build would, and writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from persianmind.recipe import Data, Quality
from persianmind.text.clean import SAMPLE_CHARACTERS, Dialogue, Document, clean_record, drop
from persianmind.text.decode import decode_record, sample_text
from persianmind.text.dedup import DuplicateRule, text_fingerprint, wanted_signature
from persianmind.text.quarantine import Damage
from persianmind.text.record import Dropped, Rejected
from persianmind.text.sources.listing import LeftOut, Listing
from persianmind.text.sources.locate import list_source
from persianmind.text.spec import SourceSpec
from persianmind.text.stream import read_records

SAMPLES = 5
USABLE = "usable"


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: where it stands, its beginning, and the names of its fields where it has some."""

    place: str
    sample: str
    fields: list[str] | None = None


@dataclass(slots=True)
class Finding:
    """What a source holds. samples: by reason, a few places with what stands there. left_out: what kept
    dialogues held beside their turns."""

    records_read: int = 0
    documents: int = 0
    characters: int = 0
    held_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)
    files: int = 0
    bytes: int = 0
    files_left_out: list[LeftOut] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    verdict: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether a build would go through."""
        return self.verdict == USABLE

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain JSON."""
        return asdict(self)

    def add_rejected(self, record: Rejected, place: str) -> None:
        """Counts a bad record."""
        self.rejected[record.reason] = self.rejected.get(record.reason, 0) + 1
        if len(self.samples.get(record.reason, ())) < SAMPLES:  # a record is parsed where it is shown
            self.sample(record.reason, place, *_shown(record.sample))
        if record.ends_file:
            self.damage.add(record)

    def add_document(self, document: Document | Dialogue | Dropped) -> None:
        """Counts a document, kept or dropped."""
        if isinstance(document, Dropped):
            self.dropped[document.reason] = self.dropped.get(document.reason, 0) + 1
            self.sample(document.reason, document.place, document.sample)
            return
        self.documents += 1
        self.characters += sum(map(len, document.texts))
        for name in document.left_out if isinstance(document, Dialogue) else ():
            self.left_out[name] = self.left_out.get(name, 0) + 1

    def sample(self, reason: str, place: str, content: str, fields: list[str] | None = None) -> None:
        """Keeps the first few of every reason."""
        kept = self.samples.setdefault(reason, [])
        if len(kept) < SAMPLES:
            kept.append(Sample(place, content[:SAMPLE_CHARACTERS], fields))


def examine_source(spec: SourceSpec, evaluated: frozenset[int], data: Data) -> Finding:
    """Judges every record of one source as a build would.

    Args:
        evaluated: fingerprints of the held-out texts.
        data: its budgets say from where on the verdict is that a build would stop.

    Raises:
        SourceError: only where a build would raise it.
    """
    duplicates = DuplicateRule(spec.quality, evaluated)
    listing = list_source(spec.name, spec.source)
    finding = Finding(
        files=len(listing.files),
        bytes=sum(file.size_bytes or 0 for file in listing.files),
        files_left_out=list(listing.left_out),
    )
    for raw in read_records(spec.name, spec.source):
        finding.records_read += 1
        record = decode_record(spec.name, spec.source, raw)
        if isinstance(record, Rejected):
            finding.add_rejected(record, raw.place)
        elif spec.is_held_out(record.key):
            finding.held_out += 1
        else:
            document = clean_record(record, spec)
            if not isinstance(document, Dropped):
                document = _unless_duplicate(document, spec.quality, duplicates)
            finding.add_document(document)
    finding.verdict = _verdict(finding, data, listing)
    return finding


def _unless_duplicate(
    document: Document | Dialogue, quality: Quality, duplicates: DuplicateRule
) -> Document | Dialogue | Dropped:
    signature = wanted_signature(document.texts, quality)
    reason = duplicates.reason(text_fingerprint(*document.texts), signature)
    return document if reason is None else drop(document, reason)


def _verdict(finding: Finding, data: Data, listing: Listing) -> str:
    bad = sum(finding.rejected.values())
    damaged = finding.damage.over_budget(data.max_damaged_file_ratio, listing.files)
    if damaged is not None:
        return damaged
    if finding.documents == 0:
        return "no usable document"
    if bad > data.max_bad_record_ratio * finding.records_read:
        allowed = f"the recipe allows {data.max_bad_record_ratio:g}"
        return f"too many bad records: {bad} of {finding.records_read}, {allowed}"
    return USABLE


def _shown(sample: str | bytes) -> tuple[str, list[str] | None]:
    """The beginning of a bad record as text, and the fields that it has where it is an object."""
    try:
        value = json.loads(sample)
    except (ValueError, RecursionError):
        value = None
    return sample_text(sample), sorted(value) if isinstance(value, dict) else None

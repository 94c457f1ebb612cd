"""The data doctor: reads a source to its end as a build would, and writes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from persianmind.recipe import Recipe
from persianmind.text.decode import Rejected, decode_record
from persianmind.text.dedup import FingerprintSet, NearDuplicates, near_signature, text_fingerprint
from persianmind.text.documents import Cleaner, Taken, evaluated_fingerprints
from persianmind.text.records import read_records

SAMPLES = 5


@dataclass(slots=True)
class Finding:
    """What a source holds. `samples`: by reason, a few places with what stands there."""

    records_read: int = 0
    documents: int = 0
    characters: int = 0
    held_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    damaged_files: list[str] = field(default_factory=list)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    verdict: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sample(self, reason: str, place: str, content: str) -> None:
        """Keeps the first few of every reason."""
        kept = self.samples.setdefault(reason, [])
        if len(kept) < SAMPLES:
            kept.append({"place": place, "sample": content[:160]})


def examine(recipe: Recipe, source_name: str) -> Finding:
    """Judges every row of one source by the recipe. Raises SourceError only where a build would."""
    cleaner = Cleaner(recipe, source_name)
    quality = recipe.quality
    exact, near = FingerprintSet(), NearDuplicates(quality.near_duplicate_threshold)
    rejected: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    finding = Finding()
    for record in read_records(source_name, cleaner.source):
        finding.records_read += 1
        row = decode_record(source_name, cleaner.source, record)
        if isinstance(row, Rejected):
            rejected[row.reason] += 1
            finding.sample(row.reason, record.place, repr(row.sample[:160]))
            if row.ends_file:
                finding.damaged_files.append(f"{row.file}: {row.reason}")
            continue
        if cleaner.is_held_out(row.key):
            finding.held_out += 1
            continue
        document = cleaner.clean(row)
        if not isinstance(document, Taken):
            document = _unless_duplicate(document.texts, document.place, recipe, exact, near) or document
        if isinstance(document, Taken):
            taken[document.reason] += 1
            finding.sample(document.reason, document.place, document.sample)
            continue
        finding.documents += 1
        finding.characters += sum(map(len, document.texts))
    finding.rejected, finding.taken = dict(rejected), dict(taken)
    finding.verdict = _verdict(finding, recipe.data.max_bad_record_ratio)
    return finding


def _unless_duplicate(
    texts: tuple[str, ...], place: str, recipe: Recipe, exact: FingerprintSet, near: NearDuplicates
) -> Taken | None:
    quality = recipe.quality
    if text_fingerprint(*texts) in evaluated_fingerprints(recipe):
        return Taken(place, "held_out_text", texts[0][:160])
    if not quality.enabled:
        return None
    if quality.exact_duplicates and not exact.add(text_fingerprint(*texts)):
        return Taken(place, "exact_duplicate", texts[0][:160])
    if quality.near_duplicates and not near.add(near_signature("\n".join(texts))):
        return Taken(place, "near_duplicate", texts[0][:160])
    return None


def _verdict(finding: Finding, max_bad_record_ratio: float) -> str:
    bad = sum(finding.rejected.values())
    if finding.documents == 0:
        return "no usable document"
    if bad > max_bad_record_ratio * finding.records_read:
        return (
            f"too many bad records: {bad} of {finding.records_read}, the recipe allows {max_bad_record_ratio:g}"
        )
    return "usable"

"""What a build has counted so far: records read, bad ones, what filters dropped, with a few samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import EmptyCorpusError
from persianmind.data.build.pipeline import TokenisedBatch, TokenisedDocument
from persianmind.data.manifest import FilterReport
from persianmind.recipe import Data, Source
from persianmind.text.advice import advice
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Dropped
from persianmind.text.sources.base import SourceFile

SAMPLES_PER_FILTER = 5


class BuildStats:
    """The counts of one source's build; bad records are also appended to `quarantine_path`."""

    def __init__(
        self, source_name: str, source: Source, quarantine_path: Path, data: Data, files: Sequence[SourceFile]
    ) -> None:
        self.name, self._source, self._data, self._files = source_name, source, data, files
        self.quarantine = Quarantine(quarantine_path)
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.samples: dict[str, list[dict[str, str]]] = {}

    def add_batch(self, batch: TokenisedBatch) -> None:
        """Counts the records of one batch, good and bad."""
        self.counts["records_read"] += batch.records
        self.counts["held_out"] += batch.held_out
        self.left_out.update(batch.left_out)
        for one in batch.rejected:
            self.quarantine.reject(one)
        for _ in range(batch.records - len(batch.rejected)):
            self.quarantine.accept()
        for dropped in batch.dropped:
            self.add_dropped(dropped)

    def add_dropped(self, dropped: Dropped) -> None:
        """Counts one document that a filter dropped, and keeps the first few of each filter."""
        self.dropped[dropped.reason] += 1
        samples = self.samples.setdefault(dropped.reason, [])
        if len(samples) < SAMPLES_PER_FILTER:
            samples.append({"place": dropped.place, "sample": dropped.sample})

    def add_packed(self, document: TokenisedDocument, pieces: int) -> None:
        """Counts one document that was cut into `pieces` and packed."""
        self.counts["documents"] += 1
        self.counts["documents_cut"] += pieces > 1
        self.counts["tokens_in"] += len(document.tokens)
        self.counts["characters"] += document.characters
        self.counts["utf8_bytes"] += document.utf8_bytes

    def check_budget(self) -> None:
        """Raises TooManyBadRecordsError once more records, or files, are bad than the recipe allows."""
        self.quarantine.check_damage(self.name, self._data.max_damaged_file_ratio, self._files)
        self.quarantine.check_budget(self.name, self._data.max_bad_record_ratio)

    def close(self) -> None:
        """The end of the source.

        Raises:
            TooManyBadRecordsError: over the budget, now also for fewer records than a running check needs.
            EmptyCorpusError: no document was usable; the message gives the counts.
        """
        self.quarantine.close()
        self.quarantine.check_budget(self.name, self._data.max_bad_record_ratio, final=True)
        if self.counts["documents"] == 0:
            raise EmptyCorpusError(self._nothing_usable())

    def _nothing_usable(self) -> str:
        """What became of the records, and what to do about the most of them."""
        lost = Counter(self.quarantine.rejected) + self.dropped
        counts = [f"{count:,} {reason}" for reason, count in lost.most_common()]
        if held_out := self.counts["held_out"]:
            counts.append(f"{held_out:,} held out")
        told = advice(lost.most_common(1)[0][0], self._source) if lost else ""
        of = f" of {self.counts['records_read']:,} records" + (f" ({', '.join(counts)})" if counts else "")
        return f"sources.{self.name} gave no usable document{of}; {told or 'give it more text'}"

    def manifest_fields(self) -> dict[str, Any]:
        """The counts a manifest states, by the names of its fields."""
        counts = self.counts
        return {
            "tokens": counts["tokens"],
            "targets": counts["targets"],
            "characters": counts["characters"],
            "utf8_bytes": counts["utf8_bytes"],
            "documents": counts["documents"],
            "documents_cut": counts["documents_cut"],
            "documents_held_out": counts["held_out"],
            "tokens_lost": counts["tokens_in"] - counts["tokens"],
            "records_read": counts["records_read"],
            "rejected": dict(self.quarantine.rejected),
            "damaged_files": self.quarantine.damage.files,
            "damaged_bytes": self.quarantine.damage.size_bytes,
            "dropped": {
                reason: FilterReport(count=count, samples=self.samples[reason])
                for reason, count in sorted(self.dropped.items())
            },
            "left_out": dict(sorted(self.left_out.items())),
        }

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {
            "counts": dict(self.counts),
            "dropped": dict(self.dropped),
            "left_out": dict(self.left_out),
            "samples": self.samples,
            "quarantine": self.quarantine.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a recorded state."""
        self.counts, self.dropped = Counter(state["counts"]), Counter(state["dropped"])
        self.left_out = Counter(state["left_out"])
        self.samples = state["samples"]
        self.quarantine.restore(state["quarantine"])

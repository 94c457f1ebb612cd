"""What a build has counted so far: rows read, bad ones, what filters took, with a few samples of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from persianmind.data.manifest import FilterReport
from persianmind.data.build.pipeline import Prepared
from persianmind.common.errors import EmptyCorpusError
from persianmind.text.documents import Taken
from persianmind.text.quarantine import Quarantine

SAMPLES_PER_FILTER = 5


class BuildStats:
    """The counts of one source's build; bad rows are also appended to `quarantine_path`."""

    def __init__(self, source_name: str, quarantine_path: Path, max_bad_record_ratio: float) -> None:
        self.name = source_name
        self.max_bad_record_ratio = max_bad_record_ratio
        self.quarantine = Quarantine(quarantine_path)
        self.counts: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.samples: dict[str, list[dict[str, str]]] = {}

    def account(self, batch: Prepared) -> None:
        """Counts the rows of one batch, good and bad."""
        self.counts["records_read"] += batch.records
        self.counts["held_out"] += batch.held_out
        for row in batch.rejected:
            self.quarantine.reject(row.file, row.line, row.reason, row.sample, ends_file=row.ends_file)
        for _ in range(batch.records - len(batch.rejected)):
            self.quarantine.accept()
        for taken in batch.taken:
            self.take(taken)

    def take(self, taken: Taken) -> None:
        """Counts one row that a filter took, and keeps the first few of each filter."""
        self.taken[taken.reason] += 1
        samples = self.samples.setdefault(taken.reason, [])
        if len(samples) < SAMPLES_PER_FILTER:
            samples.append({"place": taken.place, "sample": taken.sample})

    def check_budget(self) -> None:
        """Raises TooManyBadRecordsError once more rows are bad than the recipe allows."""
        self.quarantine.check_budget(self.name, self.max_bad_record_ratio)

    def close(self) -> None:
        """The end of the source.

        Raises:
            TooManyBadRecordsError: over the budget, now also for fewer rows than a running check needs.
            EmptyCorpusError: no document was usable; the message gives the counts.
        """
        self.quarantine.close()
        self.quarantine.check_budget(self.name, self.max_bad_record_ratio, final=True)
        if self.counts["documents"] == 0:
            raise EmptyCorpusError(
                f"sources.{self.name} gave no usable document: {self.counts['records_read']} rows read, "
                f"rejected {dict(self.quarantine.rejected)}, taken by filters {dict(self.taken)}, held out "
                f"{self.counts['held_out']}; give it more text, or look at the counts"
            )

    def manifest_fields(self) -> dict[str, Any]:
        """The counts a manifest states, by the names of its fields."""
        counts = self.counts
        return {
            "tokens": counts["tokens"],
            "targets": counts["targets"],
            "characters": counts["characters"],
            "documents": counts["documents"],
            "documents_cut": counts["documents_cut"],
            "documents_held_out": counts["held_out"],
            "tokens_lost": counts["tokens_in"] - counts["tokens"],
            "records_read": counts["records_read"],
            "rejected": dict(self.quarantine.rejected),
            "damaged_files": self.quarantine.damaged_files,
            "taken": {
                reason: FilterReport(count=count, samples=self.samples[reason])
                for reason, count in sorted(self.taken.items())
            },
        }

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {
            "counts": dict(self.counts),
            "taken": dict(self.taken),
            "samples": self.samples,
            "quarantine": self.quarantine.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a recorded state."""
        self.counts, self.taken = Counter(state["counts"]), Counter(state["taken"])
        self.samples = state["samples"]
        self.quarantine.restore(state["quarantine"])

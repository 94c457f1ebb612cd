"""Bad records are counted, and set aside with file, line and reason; too many of them stop a build."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from persianmind.common.atomic import append_line
from persianmind.common.checksum import dump_checked_line
from persianmind.common.disk import writing
from persianmind.common.errors import TooManyBadRecordsError
from persianmind.text.record import Rejected
from persianmind.text.sources.base import SourceFile

SAMPLE_CHARACTERS = 160
MIN_RECORDS_BEFORE_STOP = 1000
LINES_PER_WRITE = 256
logger = logging.getLogger(__name__)
SHOWN_FILES = 5


@dataclass(slots=True)
class Damage:
    """Files whose rest could not be read: "name: reason" of each, and their sizes as stored."""

    files: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, record: Rejected) -> None:
        """Counts one more."""
        self.files.append(f"{record.file}: {record.reason}")
        self.size_bytes += record.file_bytes or 0

    def over_budget(self, max_ratio: float, files: Sequence[SourceFile]) -> str | None:
        """How much of a source is damaged where that is more than `max_ratio` of its files, or of its bytes;
        None within that. Remote files of unknown size count as files alone."""
        total_bytes = sum(file.size_bytes or 0 for file in files)
        by_count = len(self.files) > max_ratio * len(files)
        if not by_count and self.size_bytes <= max_ratio * total_bytes:
            return None
        shown = ", ".join(self.files[:SHOWN_FILES]) + (", ..." if len(self.files) > SHOWN_FILES else "")
        count, size = f"{len(self.files)} of {len(files)}", f"{self.size_bytes:,} of {total_bytes:,} bytes"
        return f"{count} files are damaged ({size}; {shown}), over data.max_damaged_file_ratio={max_ratio:g}"


class Quarantine:
    """Counts the records read and those rejected, by reason; appends each rejected one to a JSON-lines file.

    path: None counts only. Lines are written many at a time, at the latest by `state` and `close`.

    Raises:
        DiskError: (by any method but `accept`) they cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.seen = 0
        self.rejected: Counter[str] = Counter()
        self.damage = Damage()
        self._lines: list[str] = []  # not yet written

    @property
    def total_rejected(self) -> int:
        """All bad records."""
        return sum(self.rejected.values())

    def accept(self) -> None:
        """Counts one good record."""
        self.seen += 1

    def reject(self, record: Rejected) -> None:
        """Counts one bad record."""
        self.seen += 1
        self.rejected[record.reason] += 1
        if record.ends_file:
            self.damage.add(record)
        if self.path is None:
            return
        sample = record.sample
        if isinstance(sample, bytes):
            sample = sample[: 4 * SAMPLE_CHARACTERS].decode("utf-8", "backslashreplace")
        entry = {
            "file": record.file,
            "line": record.line,
            "reason": record.reason,
            "sample": sample[:SAMPLE_CHARACTERS],
        }
        # ASCII escapes: what is in a bad record may not be valid text, or may turn a terminal around
        self._lines.append(dump_checked_line(entry, ascii_only=True))
        if len(self._lines) >= LINES_PER_WRITE:
            self.close()

    def check_budget(self, source: str, max_ratio: float, *, final: bool = False) -> None:
        """Stops over the budget: at any time after the first thousand records, and at the end.

        Raises:
            TooManyBadRecordsError: the message gives the counts by reason and the quarantine file.
        """
        if self.seen == 0 or (self.seen < MIN_RECORDS_BEFORE_STOP and not final):
            return
        ratio = self.total_rejected / self.seen
        if ratio <= max_ratio:
            return
        self.close()
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejected.most_common())
        where = f"; see {self.path}" if self.path else ""
        raise TooManyBadRecordsError(
            f"sources.{source}: {self.total_rejected} of {self.seen} records are bad ({ratio:.1%}; "
            f"{reasons}), over data.max_bad_record_ratio={max_ratio:g}{where}; fix the source or raise it"
        )

    def told(self) -> str:
        """How many records are bad and why, and which files are damaged, for a message."""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.rejected.most_common())
        damaged = (
            f"; damaged files: {', '.join(self.damage.files[:SHOWN_FILES])}" if self.damage.files else ""
        )
        return f"{self.total_rejected:,} of {self.seen:,} records are bad ({reasons}{damaged})"

    def warn(self, source: str) -> None:
        """Says at the end of a pass what was passed over in it, where anything was."""
        if self.rejected:
            logger.warning("%s: %s; they are passed over", source, self.told())

    def check_damage(self, source: str, max_ratio: float, files: Sequence[SourceFile]) -> None:
        """Stops as soon as more of the source's files, or bytes, are damaged than allowed.

        Raises:
            TooManyBadRecordsError: the message names the files.
        """
        found = self.damage.over_budget(max_ratio, files)
        if found is not None:
            self.close()
            raise TooManyBadRecordsError(
                f"sources.{source}: {found}; fetch or pack them again, or raise it to do without their rest"
            )

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON; the size of the file is the one recorded."""
        size_bytes = 0
        self.close()
        if self.path is not None and self.path.exists():
            size_bytes = self.path.stat().st_size
        return {
            "seen": self.seen,
            "rejected": dict(self.rejected),
            "damage": asdict(self.damage),
            "size_bytes": size_bytes,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a recorded state; lines written after it are cut off, they will be written again."""
        self._lines.clear()
        self.seen = state["seen"]
        self.rejected = Counter(state["rejected"])
        self.damage = Damage(**state["damage"])
        if self.path is not None and self.path.exists():
            if (lost_bytes := state["size_bytes"] - self.path.stat().st_size) > 0:
                logger.warning(
                    "%s lost %d bytes since the build was interrupted: of the bad records read before, it "
                    "does not list all", self.path, lost_bytes,
                )  # fmt: skip
                return
            with writing(self.path):
                os.truncate(self.path, state["size_bytes"])

    def close(self) -> None:
        """Writes what is not yet written; counting can go on."""
        if self.path is None or not self._lines:
            return
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, "\n".join(self._lines))
        self._lines.clear()

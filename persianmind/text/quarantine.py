"""Bad records are counted, and set aside with file, line and reason; too many of them stop a build."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import IO, Any

from persianmind.common.errors import TooManyBadRecordsError

SAMPLE_CHARACTERS = 160
MIN_RECORDS_BEFORE_STOP = 1000


class Quarantine:
    """Counts the records read and those rejected, by reason; appends each rejected one to a JSON-lines file.

    path: None counts only. The file is opened for appending at the first rejected record, so that a resumed
        build goes on in it after `truncate`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.seen = 0
        self.rejected: Counter[str] = Counter()
        self.damaged_files: list[str] = []
        self._handle: IO[str] | None = None

    @property
    def total_rejected(self) -> int:
        """All bad records."""
        return sum(self.rejected.values())

    def accept(self) -> None:
        """Counts one good record."""
        self.seen += 1

    def reject(
        self, file: str, line: int, reason: str, sample: str | bytes = "", *, ends_file: bool = False
    ) -> None:
        """Counts one bad record. `ends_file`: the rest of the file could not be read."""
        self.seen += 1
        self.rejected[reason] += 1
        if ends_file:
            self.damaged_files.append(f"{file}: {reason}")
        if self.path is None:
            return
        if isinstance(sample, bytes):
            sample = sample[: 4 * SAMPLE_CHARACTERS].decode("utf-8", "backslashreplace")
        entry = {"file": file, "line": line, "reason": reason, "sample": sample[:SAMPLE_CHARACTERS]}
        if self._handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.path.open("a", encoding="utf-8")
        # ASCII escapes: what is in a bad record may not be valid text, or may turn a terminal around
        self._handle.write(json.dumps(entry, ensure_ascii=True) + "\n")

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

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON; flushes the file so that its size is the one recorded."""
        size_bytes = 0
        if self._handle is not None:
            self._handle.flush()
        if self.path is not None and self.path.exists():
            size_bytes = self.path.stat().st_size
        return {
            "seen": self.seen,
            "rejected": dict(self.rejected),
            "damaged_files": list(self.damaged_files),
            "size_bytes": size_bytes,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a recorded state; lines written after it are cut off, they will be written again."""
        self.close()
        self.seen = state["seen"]
        self.rejected = Counter(state["rejected"])
        self.damaged_files = list(state["damaged_files"])
        if self.path is not None and self.path.exists():
            with self.path.open("rb+") as handle:
                handle.truncate(state["size_bytes"])

    def close(self) -> None:
        """Closes the file; counting can go on."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

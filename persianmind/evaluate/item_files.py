"""Records of items on disk, so that an evaluation that was cut short goes on, and two models can be paired.

A task has one file, whole or absent, and while it is scored a part per rank. The first line of each says what
the records depend on; a file of other settings is made anew. Every line carries a checksum.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from persianmind.common.atomic import append_line, write_text
from persianmind.common.checksum import dump_checked_line, parse_checked_line
from persianmind.evaluate.families import Record

HEADER, COUNT = "records_of", "items"
logger = logging.getLogger(__name__)


class ItemFile:
    """The records of one task, by item. key: of all that they depend on. path None: kept nowhere."""

    def __init__(self, path: Path | None, key: str, rank: int = 0) -> None:
        self._path, self._key, self._rank = path, key, rank

    def read(self) -> dict[int, Record]:
        """What is there of these settings, in whole files and in parts of any rank; damaged lines are not."""
        if self._path is None:
            return {}
        found: dict[int, Record] = {}
        for path in [self._path, *sorted(self._path.parent.glob(f"{self._path.name}.part-*"))]:
            found |= self._read_one(path)
        return found

    def append(self, record: Record) -> None:
        """Keeps a record in this rank's part."""
        if self._path is None:
            return
        part = self._part
        if not part.is_file() or not self._is_ours(part):
            write_text(part, dump_checked_line({HEADER: self._key}) + "\n")
        append_line(part, dump_checked_line(record))

    def finish(self, records: Iterable[Record]) -> None:
        """Writes all records as one file and removes the parts; on one rank alone, once all are done."""
        if self._path is None:
            return
        body = [self._line(record) for record in records]
        lines = [self._line({HEADER: self._key, COUNT: len(body)}), *body]
        write_text(self._path, "".join(lines))
        for part in self._path.parent.glob(f"{self._path.name}.part-*"):
            part.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.part-{self._rank}")

    def _header(self, first_line: bytes) -> dict[str, Any] | None:
        """What a file of these settings begins with; None for one of others."""
        header = parse_checked_line(first_line)
        if header is None:
            logger.warning("%s: a first line is damaged; its items are scored again", self._path)
            return None
        return header if header.get(HEADER) == self._key else None

    def _is_ours(self, path: Path) -> bool:
        with path.open("rb") as handle:
            return self._header(handle.readline()) is not None

    def _read_one(self, path: Path) -> dict[int, Record]:
        lines = path.read_bytes().splitlines() if path.is_file() else []
        header = self._header(lines[0]) if lines else None
        if header is None:
            return {}
        records = [parse_checked_line(line) for line in lines[1:]]
        found = {record["item"]: record for record in records if record is not None}
        lost = max(records.count(None), header.get(COUNT, 0) - len(found))
        if lost:
            logger.warning("%s: %d line(s) are damaged or lost; these items are scored again", path, lost)
        return found

    @staticmethod
    def _line(content: Mapping[str, object]) -> str:
        return dump_checked_line(content) + "\n"

"""Records of items on disk, so that an evaluation that was cut short goes on, and two models can be paired.

A task has one file, whole or absent, and while it is scored a part per rank. The first line of each says what
the records depend on; a file of other settings is made anew. Every line carries a checksum.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from persianmind.common.atomic import append_line, write_text
from persianmind.common.checksum import dump_checked_line, parse_checked_line
from persianmind.evaluate.families import Record

HEADER = "records_of"


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
        lines = [{HEADER: self._key}, *records]
        write_text(self._path, "".join(dump_checked_line(line) + "\n" for line in lines))
        for part in self._path.parent.glob(f"{self._path.name}.part-*"):
            part.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.part-{self._rank}")

    def _is_ours(self, path: Path) -> bool:
        with path.open("rb") as handle:
            header = parse_checked_line(handle.readline())
        return header is not None and header.get(HEADER) == self._key

    def _read_one(self, path: Path) -> dict[int, Record]:
        if not path.is_file() or not self._is_ours(path):
            return {}
        records = (parse_checked_line(line) for line in path.read_bytes().splitlines()[1:])
        return {record["item"]: record for record in records if record is not None}

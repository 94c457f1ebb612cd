"""Streaming the records of a source: bad ones are counted and set aside; memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from persianmind.common.errors import SourceError
from persianmind.common.progress import counted
from persianmind.recipe import Source
from persianmind.text.decode import decode_record
from persianmind.text.faults import BrokenFileError, Fault
from persianmind.text.parallel import PARTS
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Position, RawRecord, Record, Rejected
from persianmind.text.sources.base import SourceFile
from persianmind.text.sources.locate import locate


def read_records(name: str, source: Source, start: Position | None = None) -> Iterator[RawRecord]:
    """Streams the raw records of a source from a position on; blank lines are no records but are numbered.

    Raises:
        SourceError: a source that cannot be found, or a remote one whose connection broke (its records must
            not be lost as if they were bad; the same command goes on from the last whole shard).
    """
    start = start or Position()
    for index, file in enumerate(locate(name, source)):
        if index >= start.file:
            skip = start.record if index == start.file else 0
            yield from _file_records(name, source, file, index, skip)


def _file_records(name: str, source: Source, file: SourceFile, index: int, skip: int) -> Iterator[RawRecord]:
    """The records of file `index` after number `skip`; damage is one last record that holds a fault."""
    parts = PARTS if source.kind == "parallel" else 1
    number = behind = skip // parts
    try:
        for number, payload in counted(file.read(name, source, behind)):
            for part in range(parts):
                count = (number - 1) * parts + part + 1
                if count > skip:
                    yield RawRecord(file.name, file.format, number, Position(index, count), payload, part)
        return
    except BrokenFileError as error:
        fault = Fault(error.reason, str(error), ends_file=True, file_bytes=file.size_bytes)
    except OSError as error:
        if file.remote:
            raise SourceError(
                f"sources.{name}: reading {file.uri} broke off ({error}); run the same command again, "
                "it goes on from the last whole shard"
            ) from None
        fault = Fault("unreadable_file", str(error), ends_file=True, file_bytes=file.size_bytes)
    yield RawRecord(file.name, file.format, number + 1, Position(index + 1, 0), fault)


def stream_records(
    name: str, source: Source, quarantine: Quarantine | None = None, start: Position | None = None
) -> Iterator[Record]:
    """The good records of the source called `name`, always in the same order.

    quarantine: counts every record and keeps the bad ones; None drops the bad ones in silence.
    start: a position of an earlier pass (see RawRecord.after).

    Raises:
        SourceError: the source cannot be found, or its connection broke.
    """
    for raw in read_records(name, source, start):
        record = decode_record(name, source, raw)
        if isinstance(record, Rejected):
            if quarantine is not None:
                quarantine.reject(record)
            continue
        if quarantine is not None:
            quarantine.accept()
        yield record


def check_sources(sources: Mapping[str, Source]) -> None:
    """A cheap check of every source before anything is written: it exists, is of a known kind, can be read.

    Raises:
        SourceError: names the source and the fix.
    """
    for name, source in sources.items():
        for file in locate(name, source):
            file.check(name, source)

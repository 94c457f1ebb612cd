"""Streaming the rows of a source: bad ones are counted and set aside; memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.decode import Rejected, decode_record
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Record
from persianmind.text.records import Position, read_records
from persianmind.text.sources.locate import SourceFile, locate


def stream_records(
    name: str, source: Source, quarantine: Quarantine | None = None, start: Position | None = None
) -> Iterator[Record]:
    """The good rows of the source called `name`, always in the same order.

    quarantine: counts every row and keeps the bad ones; None drops the bad ones in silence.
    start: a position of an earlier pass (see records.RawRecord.after).

    Raises:
        SourceError: the source cannot be found, or its connection broke.
    """
    for record in read_records(name, source, start):
        row = decode_record(name, source, record)
        if isinstance(row, Rejected):
            if quarantine is not None:
                quarantine.reject(row.file, row.line, row.reason, row.sample, ends_file=row.ends_file)
            continue
        if quarantine is not None:
            quarantine.accept()
        yield row


def check_sources(sources: Mapping[str, Source]) -> None:
    """A cheap check of every source before anything is written: it exists, is of a known kind, can be read.

    Raises:
        SourceError: names the source and the fix.
    """
    for name, source in sources.items():
        for file in locate(name, source):
            if file.format == "parquet":
                _check_columns(name, source, file)


def _check_columns(name: str, source: Source, file: SourceFile) -> None:
    """A parquet file without the text column is a mistake in the recipe, not a million bad rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as handle:
            columns = pq.read_schema(handle).names
    except (pa.ArrowException, OSError):
        return  # a damaged file is counted and reported while reading
    if source.kind == "text" and source.text_field not in columns:
        raise SourceError(
            f"sources.{name}: {file.name} has no column {source.text_field!r}; set text_field to one of: "
            f"{', '.join(columns)}"
        )

"""CSV and TSV: a record per row, its fields named by the first one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Literal

from persianmind.recipe import Source
from persianmind.text.compression import first_bytes, read_chunks
from persianmind.text.faults import BadRecordError, BrokenFileError, Fault
from persianmind.text.formats.base import ByteFile, require_columns
from persianmind.text.lines import MAX_RECORD_BYTES, OversizeLine, split_lines
from persianmind.text.record import Fields, Payload

_UNDECODABLE = re.compile("[\udc80-\udcff]")
HEAD_BYTES = 1 << 18
_DELIMITERS = ",\t;"


class Delimited:
    """`.csv` and `.tsv`. The delimiter is the one that the first line holds most often."""

    name = "csv"
    suffixes = (".csv", ".tsv")
    compressible = True

    def recognises(self, head: bytes) -> bool:
        """Any text could be one: known by name alone."""
        return False

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """A row each, numbered by its last line in the file."""
        csv.field_size_limit(MAX_RECORD_BYTES)
        rows = _rows(file)
        try:
            _, header = next(rows, (0, []))
            for number, row in rows:
                if number <= skip or not row:
                    continue
                if len(row) == len(header):
                    yield number, dict(zip(header, row, strict=True))
                else:
                    yield (
                        number,
                        Fault("other_columns", f"{len(row)} fields, the first line names {len(header)}"),
                    )
        except csv.Error as error:
            raise BrokenFileError("corrupt_csv", str(error)) from None

    def decode(self, payload: Fields, source: Source) -> Fields:
        """All fields are text."""
        if any(_UNDECODABLE.search(one) for one in payload.values()):
            raise BadRecordError("invalid_utf8")
        return payload

    def check(self, file: ByteFile, source_name: str, source: Source) -> None:
        """A file without the text column is a mistake in the recipe, not a million bad records."""
        try:
            _, columns = next(_rows(file), (0, []))
        except (BrokenFileError, csv.Error, OSError):
            return  # a damaged file is counted and reported while reading
        if columns:
            require_columns(file.name, source_name, source, columns)


def _rows(file: ByteFile) -> Iterator[tuple[int, list[str]]]:
    """(line on which it ends, fields) of each row, the first one too."""
    with file.open() as handle:
        head = first_bytes(handle, file.compression, HEAD_BYTES).decode("utf-8", "surrogateescape")
    top = head.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=top.count)
    plain = delimiter == "\t" and not _is_quoted(head)
    with file.open() as handle:
        lines = _lines(read_chunks(handle, file.compression))
        quoting: Literal[0, 3] = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        for row in reader:
            yield reader.line_num, row


def _is_quoted(head: str) -> bool:
    """Whether quotes around the fields of a tab-separated file are quotes; in many, they are text."""
    whole = head[: head.rfind("\n") + 1]
    try:
        rows = [
            row for row in csv.reader(whole.splitlines(keepends=True), delimiter="\t", strict=True) if row
        ]
    except csv.Error as error:
        return "unexpected end of data" in str(error)  # the head ends within a field of several lines
    return len({len(row) for row in rows}) == 1


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(split_lines(chunks)):
        if isinstance(line, OversizeLine):
            raise BrokenFileError("record_too_long", f"a line of {line.size_bytes} bytes")
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield line.decode("utf-8", "surrogateescape") + "\n"


FORMAT = Delimited()

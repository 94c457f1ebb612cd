"""The raw records of a source, one at a time, with the position to go on from. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.formats.lines import (
    MAX_RECORD_BYTES,
    DamagedFileError,
    OversizeLine,
    read_chunks,
    split_lines,
)
from persianmind.text.record import Record
from persianmind.text.sources.locate import Format, SourceFile, locate

T = TypeVar("T")

PARQUET_BATCH_RECORDS = 256
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: the number of whole files behind, and of records behind in the next one."""

    file: int = 0
    record: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is no row: counted under `reason`. `ends_file`: the rest of its file is lost too."""

    reason: str
    detail: str
    ends_file: bool = False


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One raw record. `after` is the position once it is consumed; `number` counts from 1 in its file."""

    file_name: str
    format: Format
    number: int
    after: Position
    payload: bytes | Mapping[str, Any] | Record | Fault

    @property
    def place(self) -> str:
        return f"{self.file_name}:{self.number}"


def read_records(name: str, source: Source, start: Position | None = None) -> Iterator[RawRecord]:
    """Streams the records of a source from a position on; blank lines are no records but are numbered.

    Raises:
        SourceError: a source that cannot be found, or a remote one whose connection broke (its rows must not
            be lost as if they were bad; the same command goes on from the last whole shard).
    """
    start = start or Position()
    for index, file in enumerate(locate(name, source)):
        if index < start.file:
            continue
        skip = start.record if index == start.file else 0
        number = skip
        try:
            for number, payload in _file_payloads(name, source, file, skip):
                yield RawRecord(file.name, file.format, number, Position(index, number), payload)
        except DamagedFileError as error:
            fault = Fault(error.reason, str(error), ends_file=True)
            yield RawRecord(file.name, file.format, number + 1, Position(index + 1, 0), fault)
        except OSError as error:
            if file.remote:
                raise SourceError(
                    f"sources.{name}: reading {file.uri} broke off ({error}); run the same command again, "
                    "it goes on from the last whole shard"
                ) from None
            fault = Fault("unreadable_file", str(error), ends_file=True)
            yield RawRecord(file.name, file.format, number + 1, Position(index + 1, 0), fault)


def _file_payloads(
    name: str, source: Source, file: SourceFile, skip: int
) -> Iterator[tuple[int, bytes | Mapping[str, Any] | Record | Fault]]:
    """(number, payload) of the records of one file whose number is greater than `skip`."""
    if file.format == "package":
        from persianmind.text.sources.package import read_package

        yield from _after(enumerate(read_package(name, file.name), start=1), skip)
    elif file.format == "hf":
        yield from _after(enumerate(_hub_rows(name, file), start=1), skip)
    elif file.format == "parquet":
        yield from _parquet_rows(file, skip)
    elif file.format == "txt" and source.txt_unit == "paragraph":
        yield from _after(_paragraphs(_lines(file)), skip)
    else:
        yield from _after(_lines(file), skip)


def _after(numbered: Iterator[tuple[int, T]], skip: int) -> Iterator[tuple[int, T]]:
    return (item for item in numbered if item[0] > skip)


def _lines(file: SourceFile) -> Iterator[tuple[int, bytes | Fault]]:
    with file.open() as handle:
        for number, line in enumerate(split_lines(read_chunks(handle, file.compression)), start=1):
            if isinstance(line, OversizeLine):
                detail = f"{line.size_bytes} bytes, the limit is {MAX_RECORD_BYTES}"
                yield number, Fault("record_too_long", detail)
                continue
            if number == 1 and line.startswith(_UTF16_MARKS):
                raise DamagedFileError("utf16", "UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
            line = line.removeprefix(_UTF8_MARK)
            if line.strip():
                yield number, line


def _paragraphs(lines: Iterator[tuple[int, bytes | Fault]]) -> Iterator[tuple[int, bytes | Fault]]:
    """Joins neighbouring lines (gaps in the numbering are blank lines); numbered by the last line."""
    held: list[bytes] = []
    held_bytes = last = 0
    for number, line in lines:
        if isinstance(line, Fault):
            yield number, line
            continue
        if held and number != last + 1:
            yield last, b"\n".join(held)
            held, held_bytes = [], 0
        held.append(line)
        held_bytes += len(line) + 1
        last = number
        if held_bytes > MAX_RECORD_BYTES:
            yield last, Fault("record_too_long", f"a paragraph longer than {MAX_RECORD_BYTES} bytes")
            held, held_bytes = [], 0
    if held:
        yield last, b"\n".join(held)


def _parquet_rows(file: SourceFile, skip: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as handle:
            reader = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False)
            number = 0
            for batch in reader.iter_batches(batch_size=PARQUET_BATCH_RECORDS):
                if number + batch.num_rows <= skip:
                    number += batch.num_rows
                    continue
                for row in batch.to_pylist():
                    number += 1
                    if number > skip:
                        yield number, row
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and file.remote and not isinstance(error, pa.ArrowException):
            raise
        raise DamagedFileError("corrupt_parquet", " ".join(str(error).split())) from None


def _hub_rows(name: str, file: SourceFile) -> Iterator[Mapping[str, Any]]:
    """`hf://owner/dataset?split=train&config=fa`, streamed; the split is `train` unless stated."""
    from urllib.parse import parse_qs, urlsplit

    from datasets import load_dataset

    rest = file.uri.removeprefix("hf://")
    parts = urlsplit(rest)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        # No trust_remote_code: a dataset that needs its own script is refused by `datasets` itself.
        rows = load_dataset(
            parts.path, name=query.get("config"), split=query.get("split", "train"), streaming=True
        )
        yield from rows
    except OSError:
        raise
    except Exception as error:  # the library raises many kinds; all of them mean: this source cannot be read
        line = " ".join(str(error).split())
        raise SourceError(f"sources.{name}: `datasets` cannot stream {file.uri}: {line}") from None

"""The records of a test's file, as mappings of their fields; published files come in many kinds.

JSON lines or one JSON array, CSV with a comma or a TAB (by the header: FarsTail's .csv are separated by TABs,
and need quoting), plain lines, each also as .gz; Parquet, Excel sheets. A hub id that the user names is
loaded by `datasets`; nothing is fetched otherwise.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from persianmind.common.errors import DataError

Row = Mapping[str, Any]
HUB = "hf://"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
MAX_BYTES = 2 << 30
_GZIP = b"\x1f\x8b"


def read_rows(place: str, sheet: str | None = None) -> Iterator[Row]:
    """The records of a file, or of a hub dataset (hf://owner/name?config=..&split=..).

    Args:
        sheet: of an Excel file.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is a Git LFS pointer, or not of its kind; the line says which.
    """
    if place.startswith(HUB):
        yield from _hub_rows(place)
        return
    path = Path(place)
    kinds = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = kinds[-1].lower() if kinds else ""
    try:
        if kind in (".jsonl", ".json"):
            yield from _json_rows(path)
        elif kind in (".csv", ".tsv"):
            yield from _csv_rows(path)
        elif kind == ".parquet":
            yield from _parquet_rows(path)
        elif kind == ".xlsx":
            yield from _sheet_rows(path, sheet)
        else:
            raise DataError(f"{path}: a test is .jsonl, .json, .csv, .tsv, .parquet or .xlsx")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); convert it") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}") from None


def plain_lines(place: str) -> list[str]:
    """The lines of a plain text file, without their ends; an empty last one is none.

    Raises:
        FileNotFoundError, DataError: as `read_rows`.
    """
    try:
        return _bytes(Path(place)).decode("utf-8-sig").split("\n")[:-1] or [""]
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 (byte {error.start}); convert it") from None


def data_sha256(places: list[str]) -> str:
    """SHA-256 over the files as they lie there, in order; of a hub id, over its name (its bytes are the
    library's)."""
    digest = hashlib.sha256()
    for place in places:
        if place.startswith(HUB):
            digest.update(place.encode("utf-8"))
            continue
        with Path(place).open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _bytes(path: Path) -> bytes:
    """The whole content, unpacked.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is a pointer, larger than any test, or cannot be unpacked.
    """
    raw = path.read_bytes()
    if raw.startswith(LFS_POINTER):
        raise _pointer(path)
    if raw.startswith(_GZIP):
        try:
            with gzip.open(io.BytesIO(raw)) as handle:
                raw = handle.read(MAX_BYTES)
        except (OSError, EOFError) as error:
            raise DataError(f"{path} is damaged: {error}; copy it again") from None
    return raw


def _json_rows(path: Path) -> Iterator[Row]:
    text = _bytes(path).decode("utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} is no JSON array: {error}") from None
    else:
        rows = _json_lines(path, text)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: record {number} is no JSON object")
        yield row


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is no JSON: {error}") from None


def _csv_rows(path: Path) -> Iterator[Row]:
    text = _bytes(path).decode("utf-8-sig")
    header = text[: text.find("\n")] if "\n" in text else text
    delimiter = "\t" if "\t" in header else ","
    csv.field_size_limit(1 << 24)
    yield from csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    _bytes_head(path)
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is no Parquet file: {error}") from None
    yield from table.to_pylist()


def _sheet_rows(path: Path, sheet: str | None) -> Iterator[Row]:
    from zipfile import BadZipFile

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    _bytes_head(path)
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError) as error:
        raise DataError(f"{path} is no Excel file: {error}") from None
    name = sheet or book.sheetnames[0]
    if name not in book.sheetnames:
        raise DataError(f"{path} has no sheet {name!r}; it has {', '.join(book.sheetnames)}")
    lines = book[name].iter_rows(values_only=True)
    header = [str(cell) for cell in next(lines, ())]
    for line in lines:
        if any(cell is not None for cell in line):
            yield dict(zip(header, line, strict=False))


def _bytes_head(path: Path) -> None:
    with path.open("rb") as handle:
        if handle.read(len(LFS_POINTER)) == LFS_POINTER:
            raise _pointer(path)


def _pointer(path: Path) -> DataError:
    return DataError(f"{path} is a Git LFS pointer, not the data; run `git lfs pull` where it was cloned")


def _hub_rows(place: str) -> Iterator[Row]:
    from datasets import load_dataset

    parts = urlsplit(place.removeprefix(HUB))
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        yield from load_dataset(parts.path, name=query.get("config"), split=query.get("split", "test"))
    except Exception as error:  # of many kinds; all mean that these data are not to be had
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{place} cannot be loaded by `datasets`: {reason}; give a file instead") from None

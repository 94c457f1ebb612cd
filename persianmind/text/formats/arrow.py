"""Arrow: what `datasets` writes with save_to_disk, and Feather files of version 2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from persianmind.recipe import Source
from persianmind.text.faults import BrokenFileError
from persianmind.text.formats.base import ByteFile, require_columns
from persianmind.text.record import Fields, Payload

BATCH_ROWS = 256
_FILE, _STREAM = b"ARROW1", b"\xff\xff\xff\xff"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class Arrow:
    """`.arrow` and `.feather`; of an HF dataset folder these are the data, its JSON files are about it."""

    name = "arrow"
    suffixes = (".arrow", ".feather")
    compressible = False

    def recognises(self, head: bytes) -> bool:
        """By its first bytes."""
        return head.startswith((_FILE, _STREAM))

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """Batches of rows; a stream whose end is missing is damaged."""
        import pyarrow as pa

        number = 0
        try:
            with file.open() as handle:
                for batch in _batches(handle):
                    for start in range(max(0, skip - number), batch.num_rows, BATCH_ROWS):
                        rows = batch.slice(start, BATCH_ROWS).to_pylist()
                        yield from enumerate(rows, start=number + start + 1)
                    number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and file.remote and not isinstance(error, pa.ArrowException):
                raise
            raise BrokenFileError("corrupt_arrow", " ".join(str(error).split())) from None

    def decode(self, payload: Fields, source: Source) -> Fields:
        """The fields were read as such."""
        return payload

    def check(self, file: ByteFile, source_name: str, source: Source) -> None:
        """A file without the text column is a mistake in the recipe, not a million bad records."""
        import pyarrow as pa

        try:
            with file.open() as handle:
                columns = _open(handle).schema.names
        except (pa.ArrowException, OSError):
            return  # a damaged file is counted and reported while reading
        require_columns(file.name, source_name, source, columns)


def _open(handle: IO[bytes]):  # type: ignore[no-untyped-def]  # pyarrow has no types
    import pyarrow as pa

    head = handle.read(len(_FILE))
    handle.seek(0)
    return pa.ipc.open_file(handle) if head == _FILE else pa.ipc.open_stream(handle)


def _batches(handle: IO[bytes]):  # type: ignore[no-untyped-def]
    import pyarrow as pa

    reader = _open(handle)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        return
    yield from reader
    # pyarrow takes the end of the file for the end of the stream: half a download would pass for a whole one.
    handle.seek(-len(_END_OF_STREAM), os.SEEK_END)
    if handle.read() != _END_OF_STREAM:
        raise pa.ArrowInvalid("the stream ends without its end mark")


FORMAT = Arrow()

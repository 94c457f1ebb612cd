"""Parquet: a record per row of the table."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.recipe import Source
from persianmind.text.faults import BrokenFileError
from persianmind.text.formats.base import ByteFile, require_columns
from persianmind.text.record import Fields, Payload

BATCH_ROWS = 256


class Parquet:
    """`.parquet`; pages carry their own compression."""

    name = "parquet"
    suffixes = (".parquet",)
    compressible = False

    def recognises(self, head: bytes) -> bool:
        """By its first bytes."""
        return head.startswith(b"PAR1")

    def read(self, file: ByteFile, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """Batches of rows; a page whose checksum is wrong ends the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with file.open() as handle:
                reader = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False)
                number = 0
                for batch in reader.iter_batches(batch_size=BATCH_ROWS):
                    if number + batch.num_rows <= skip:
                        number += batch.num_rows
                        continue
                    for fields in batch.to_pylist():
                        number += 1
                        if number > skip:
                            yield number, fields
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and file.remote and not isinstance(error, pa.ArrowException):
                raise
            raise BrokenFileError("corrupt_parquet", " ".join(str(error).split())) from None

    def decode(self, payload: Fields, source: Source) -> Fields:
        """The fields were read as such."""
        return payload

    def check(self, file: ByteFile, source_name: str, source: Source) -> None:
        """A file without the text column is a mistake in the recipe, not a million bad records."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with file.open() as handle:
                columns = pq.read_schema(handle).names
        except (pa.ArrowException, OSError):
            return  # a damaged file is counted and reported while reading
        require_columns(file.name, source_name, source, columns)


FORMAT = Parquet()

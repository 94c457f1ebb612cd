"""Bytes to numbered lines in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from persianmind.text.compression import read_chunks
from persianmind.text.faults import BrokenFileError, Fault
from persianmind.text.formats.base import ByteFile

MAX_RECORD_BYTES = 1 << 25
# One record that is this long is no text but a decompression bomb: the file is given up.
BOMB_BYTES = 1 << 30
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class OversizeLine:
    """A line longer than the limit, passed over without being held."""

    size_bytes: int


def numbered_lines(file: ByteFile) -> Iterator[tuple[int, bytes | Fault]]:
    """(number from 1, line) of the lines of a file that are not blank; blank ones are numbered too.

    Raises:
        BrokenFileError: the rest of the file cannot be read.
        OSError: as the file system raises it.
    """
    with file.open() as handle:
        for number, line in enumerate(split_lines(read_chunks(handle, file.compression)), start=1):
            if isinstance(line, OversizeLine):
                detail = f"{line.size_bytes} bytes, the limit is {MAX_RECORD_BYTES}"
                yield number, Fault("record_too_long", detail)
                continue
            if number == 1 and line.startswith(_UTF16_MARKS):
                raise BrokenFileError("utf16", "UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
            line = line.removeprefix(_UTF8_MARK)
            if line.strip():
                yield number, line


def split_lines(
    chunks: Iterator[bytes], limit_bytes: int = MAX_RECORD_BYTES, bomb_bytes: int = BOMB_BYTES
) -> Iterator[bytes | OversizeLine]:
    r"""Lines without their end (\n or \r\n). Never holds more than the limit plus one chunk.

    Raises:
        BrokenFileError: one line went past `bomb_bytes`.
    """
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            piece = chunk[start:end]
            start = end + 1
            yield _finish_line(parts, held + len(piece), piece, limit_bytes)
            parts, held = [], 0
        tail = chunk[start:]
        held += len(tail)
        if held <= limit_bytes:
            parts.append(tail)
        else:
            parts = []  # past the limit only the length is kept
        if held > bomb_bytes:
            raise BrokenFileError("decompression_bomb", f"a single line is longer than {bomb_bytes} bytes")
    if held:
        yield _finish_line(parts, held, b"", limit_bytes)


def _finish_line(parts: list[bytes], size_bytes: int, piece: bytes, limit_bytes: int) -> bytes | OversizeLine:
    if size_bytes > limit_bytes:
        return OversizeLine(size_bytes)
    line = b"".join([*parts, piece]) if parts else piece
    return line[:-1] if line.endswith(b"\r") else line

"""Bytes to lines in bounded memory: decompression that notices truncation, and a splitter with a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import zstandard

from persianmind.text.sources.locate import Compression

CHUNK_BYTES = 1 << 20
# A zstd block of 4 bytes can stand for 128 KiB. Feeding this little at a time bounds what one call can yield.
ZSTD_FEED_BYTES = 1 << 10
ZSTD_MAX_WINDOW_BYTES = 1 << 27
MAX_RECORD_BYTES = 1 << 25
# One record that is this long is no text but a decompression bomb: the file is given up.
BOMB_BYTES = 1 << 30


class DamagedFileError(Exception):
    """The rest of a file cannot be read. `reason` is the name it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OversizeLine:
    """A line longer than the limit, passed over without being held."""

    size_bytes: int


def read_chunks(handle: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """Decompressed chunks of at most some MiB each, whatever the compression ratio.

    Raises:
        DamagedFileError: truncated or corrupt compressed data, after everything before it was yielded.
    """
    if compression == "gz":
        return _gunzip(handle)
    if compression == "zst":
        return _unzstd(handle)
    return iter(lambda: handle.read(CHUNK_BYTES), b"")


def _gunzip(handle: IO[bytes]) -> Iterator[bytes]:
    """All members of a gzip file; zlib itself checks each member's CRC and length."""
    pending = handle.read(CHUNK_BYTES)
    while pending:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            before = member.copy()  # some 40 KiB for each MiB of text: what a failing call made is not lost
            try:
                chunk = member.decompress(pending, CHUNK_BYTES)
            except zlib.error as error:
                yield from _salvage_gz(before, pending)
                raise DamagedFileError("corrupt_gz", str(error)) from None
            if chunk:
                yield chunk
            pending = member.unconsumed_tail
            if not pending and not member.eof:
                pending = handle.read(CHUNK_BYTES)
                if not pending:
                    raise DamagedFileError("truncated_gz", "the file ends inside a gzip member")
        pending = (member.unused_data or handle.read(CHUNK_BYTES)).lstrip(b"\0")  # zero padding is legal


def _salvage_gz(before: Any, pending: bytes) -> Iterator[bytes]:
    """What can be decompressed of a piece that fails as a whole, byte by byte up to the damage."""
    try:
        while chunk := before.decompress(pending, 1):
            yield chunk
            pending = before.unconsumed_tail
    except zlib.error:
        return


def _unzstd(handle: IO[bytes]) -> Iterator[bytes]:
    """All frames of a zstd file. The library's own reader passes truncation over in silence."""
    start = 0  # of the frame, in the file
    pending = handle.read(ZSTD_FEED_BYTES)
    while pending:
        frame, fed = _zstd_frame(), 0
        while True:
            try:
                chunk = frame.decompress(pending)
            except zstandard.ZstdError as error:
                yield from _salvage_zst(handle, start, fed, pending)
                raise DamagedFileError("corrupt_zst", str(error)) from None
            fed += len(pending)
            if chunk:
                yield chunk
            if frame.eof:
                break
            pending = handle.read(ZSTD_FEED_BYTES)
            if not pending:
                raise DamagedFileError("truncated_zst", "the file ends inside a zstd frame")
        start += fed - len(frame.unused_data)
        pending = frame.unused_data or handle.read(ZSTD_FEED_BYTES)


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW_BYTES).decompressobj()


def _salvage_zst(handle: IO[bytes], start: int, fed: int, pending: bytes) -> Iterator[bytes]:
    """Decodes a damaged frame once more up to the piece that failed, then that piece byte by byte."""
    handle.seek(start)
    frame = _zstd_frame()
    while fed:
        piece = handle.read(min(fed, ZSTD_FEED_BYTES))
        frame.decompress(piece)
        fed -= len(piece)
    try:
        for i in range(len(pending)):
            if chunk := frame.decompress(pending[i : i + 1]):
                yield chunk
    except zstandard.ZstdError:
        return


def split_lines(
    chunks: Iterator[bytes], limit_bytes: int = MAX_RECORD_BYTES, bomb_bytes: int = BOMB_BYTES
) -> Iterator[bytes | OversizeLine]:
    r"""Lines without their end (\n or \r\n). Never holds more than the limit plus one chunk.

    Raises:
        DamagedFileError: one line went past `bomb_bytes`.
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
            raise DamagedFileError("decompression_bomb", f"a single line is longer than {bomb_bytes} bytes")
    if held:
        yield _finish_line(parts, held, b"", limit_bytes)


def _finish_line(parts: list[bytes], size_bytes: int, piece: bytes, limit_bytes: int) -> bytes | OversizeLine:
    if size_bytes > limit_bytes:
        return OversizeLine(size_bytes)
    line = b"".join([*parts, piece]) if parts else piece
    return line[:-1] if line.endswith(b"\r") else line

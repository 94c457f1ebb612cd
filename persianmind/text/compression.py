"""Decompression in bounded memory that notices truncation and keeps what stands before damage."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal

import zstandard

from persianmind.text.faults import BrokenFileError

Compression = Literal["", "gz", "zst"]
COMPRESSION_SUFFIXES: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}

CHUNK_BYTES = 1 << 20
# A zstd block of 4 bytes can stand for 128 KiB. Feeding this little at a time bounds what one call can yield.
ZSTD_FEED_BYTES = 1 << 10
ZSTD_MAX_WINDOW_BYTES = 1 << 27


def read_chunks(handle: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """Decompressed chunks of at most some MiB each, whatever the compression ratio.

    Raises:
        BrokenFileError: truncated or corrupt compressed data, after everything before it was yielded.
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
                raise BrokenFileError("corrupt_gz", str(error)) from None
            if chunk:
                yield chunk
            pending = member.unconsumed_tail
            if not pending and not member.eof:
                pending = handle.read(CHUNK_BYTES)
                if not pending:
                    raise BrokenFileError("truncated_gz", "the file ends inside a gzip member")
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
                raise BrokenFileError("corrupt_zst", str(error)) from None
            fed += len(pending)
            if chunk:
                yield chunk
            if frame.eof:
                break
            pending = handle.read(ZSTD_FEED_BYTES)
            if not pending:
                raise BrokenFileError("truncated_zst", "the file ends inside a zstd frame")
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

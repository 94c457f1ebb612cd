"""Decompression in bounded memory that notices truncation and keeps what stands before damage."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal

import zstandard

from persianmind.common.progress import counted
from persianmind.text.faults import BrokenFileError

Compression = Literal["", "gz", "bz2", "xz", "zst"]
COMPRESSION_SUFFIXES: dict[str, Compression] = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst"}
_MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}

CHUNK_BYTES = 1 << 20
# A zstd block of 4 bytes can stand for 128 KiB. Feeding this little at a time bounds what one call can yield.
ZSTD_FEED_BYTES = 1 << 10
ZSTD_MAX_WINDOW_BYTES = 1 << 27
XZ_MAX_MEMORY_BYTES = 1 << 28  # of its dictionary; `xz -9` needs 65 MiB


def compression_of(head: bytes) -> Compression:
    """How a file is packed, by its first bytes; "" where none of them says so."""
    return next((known for magic, known in _MAGIC.items() if head.startswith(magic)), "")


def first_bytes(handle: IO[bytes], compression: Compression, count: int) -> bytes:
    """What a file begins with, unpacked: up to `count` bytes, or what stands before damage."""
    held = bytearray()
    try:
        for chunk in read_chunks(handle, compression):
            held += chunk[: count - len(held)]
            if len(held) == count:
                break
    except BrokenFileError:
        pass
    return bytes(held)


def read_chunks(handle: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """Decompressed chunks of at most some MiB each, whatever the compression ratio; each is work done.

    Raises:
        BrokenFileError: truncated or corrupt compressed data, after everything before it was yielded.
    """
    return counted(_chunks(handle, compression))


def _chunks(handle: IO[bytes], compression: Compression) -> Iterator[bytes]:
    if compression == "gz":
        return _gunzip(handle)
    if compression == "zst":
        return _unzstd(handle)
    if compression in ("bz2", "xz"):
        return _unpack(handle, compression)
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


def _unpack(handle: IO[bytes], kind: Literal["bz2", "xz"]) -> Iterator[bytes]:
    """All streams of a .bz2 or .xz file; the library checks each block."""
    start = 0  # of the stream, in the file
    pending = handle.read(CHUNK_BYTES)
    while pending:
        stream, given, yielded = _new_stream(kind), 0, 0
        while not stream.eof:
            given += len(pending)
            try:
                chunk = stream.decompress(pending, CHUNK_BYTES)
            except (OSError, lzma.LZMAError) as error:
                yield from _salvage(handle, kind, start, yielded)
                raise BrokenFileError(f"corrupt_{kind}", str(error)) from None
            if chunk:
                yielded += len(chunk)
                yield chunk
            pending = b""
            if stream.needs_input and not stream.eof:
                pending = handle.read(CHUNK_BYTES)
                if not pending:
                    raise BrokenFileError(f"truncated_{kind}", f"the file ends inside a {kind} stream")
        start += given - len(stream.unused_data)
        following = stream.unused_data or handle.read(CHUNK_BYTES)
        pending = following.lstrip(b"\0")  # zero padding between streams is legal in .xz
        start += len(following) - len(pending)


def _new_stream(kind: Literal["bz2", "xz"]) -> Any:
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MAX_MEMORY_BYTES)


def _salvage(handle: IO[bytes], kind: Literal["bz2", "xz"], start: int, yielded: int) -> Iterator[bytes]:
    """Decodes a damaged stream once more up to what was yielded of it, then a byte at a time."""
    handle.seek(start)
    stream = _new_stream(kind)
    try:
        while not stream.eof:
            pending = handle.read(CHUNK_BYTES) if stream.needs_input else b""
            chunk = stream.decompress(pending, min(yielded, CHUNK_BYTES) or 1)
            if yielded:
                yielded -= len(chunk)
            elif chunk:
                yield chunk
    except (OSError, lzma.LZMAError):
        return

"""Of which kind a local file is, by its first bytes before its name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from persianmind.text.compression import COMPRESSION_SUFFIXES, Compression, compression_of, first_bytes
from persianmind.text.formats import kind_of_name, text_formats

HEAD_BYTES = 4096
Kind = tuple[str, Compression]  # (name of the format, compression)

_FOREIGN = {
    b"PK\x03\x04": "a zip archive (or a document of an office program): unpack it",
    b"Rar!": "a rar archive: unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"%PDF": "a PDF: extract its text",
    b"\xd0\xcf\x11\xe0": "a document of an office program: save it as text",
    b"\x89HDF": "an HDF5 file: write its text as jsonl or parquet",
    b"SQLite format 3": "a database: write its text as jsonl or parquet",
    b"version https://git-lfs": "a pointer of Git LFS, not the data: git lfs pull",
}
_TAR_MAGIC, _TAR_AT = b"ustar", 257


def kind_of_file(path: Path) -> Kind | str:
    """Its kind, or why it is not read. Raises OSError as the file system does."""
    stat = path.stat()
    return _kind_of_file(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 17)  # a source is listed several times before its first record is read
def _kind_of_file(path: str, size_bytes: int, modified_ns: int) -> Kind | str:
    by_name = kind_of_name(path)
    if size_bytes == 0:
        return "empty: 0 bytes"
    with Path(path).open("rb") as handle:
        head = handle.read(HEAD_BYTES)
        compression = compression_of(head)
        if compression:
            handle.seek(0)
            head = first_bytes(handle, compression, HEAD_BYTES)
        elif by_name is not None and by_name[1] and not _is_text(head):
            compression = by_name[1]  # its first bytes are gone: counted as damaged where it is read
    if foreign := _foreign(head):
        return foreign
    for one in text_formats().values():
        if not one.compressible and one.recognises(head):
            return "a table within a compressed file: unpack it" if compression else (one.name, "")
    if by_name is not None and (text_formats()[by_name[0]].compressible or not compression):
        return by_name[0], compression
    for one in text_formats().values():
        if one.recognises(head):
            return one.name, compression
    return f"of no known kind ({_suffix(path) or 'no suffix'})"


def _foreign(head: bytes) -> str | None:
    if head[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC:
        return "a tar archive: unpack it"
    return next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)


def _is_text(head: bytes) -> bool:
    """Whether it may be text in any 8-bit encoding: no control characters but white space."""
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)


def _suffix(path: str) -> str:
    suffixes = Path(path).suffixes
    return "".join(
        suffixes[-2:] if suffixes and suffixes[-1].lower() in COMPRESSION_SUFFIXES else suffixes[-1:]
    )

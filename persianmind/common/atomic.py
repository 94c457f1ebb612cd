"""Writing files so that they are whole or absent, and appending so that a line is there or not.

Everything here raises a `DiskError` that names the file where its disk refuses it, and leaves nothing
half-written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from persianmind.common.disk import writing, writing_below
from persianmind.common.errors import PersianMindError


def fsync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable (POSIX: a rename is only on disk once its folder is)."""
    fsync_file(folder)


def fsync_file(path: Path) -> None:
    """Makes the bytes of one file durable.

    Raises:
        DiskError: the disk refuses it.
    """
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `path` whole or not at all: temporary name beside it, fsync, rename, fsync of the folder.

    Raises:
        DiskError: the disk refuses it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def append_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Appends all of `content` or nothing.

    Args:
        durable: waits until it is on the disk.

    Raises:
        DiskError: the disk refuses it; the file is as it was.
    """
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _append(descriptor, content, os.fstat(descriptor).st_size)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Appends a line, or several that are joined by line ends; a last line that a kill cut short is closed
    first, so that it spoils only itself.

    Raises:
        DiskError: as `append_bytes`.
    """
    append_bytes(path, (b"\n" if _ends_torn(path) else b"") + line.encode("utf-8") + b"\n", durable=durable)


def _ends_torn(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            handle.seek(-1, os.SEEK_END)
            return handle.read(1) != b"\n"
    except OSError:  # not there, or empty
        return False


def _append(descriptor: int, content: bytes, size_bytes: int) -> None:
    rest = memoryview(content)
    try:
        while rest:  # a disk that fills up takes a part first
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size_bytes)
        raise


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON with keys in the order given; NaN is refused, not written."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON written by `write_json`; a damaged file is a named error."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise PersianMindError(
            f"{path} is not valid JSON ({error}); delete it to have it made again"
        ) from None


@contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Yields a temporary name beside `final`; it becomes `final` by rename when the block ends without an
    error.

    Raises:
        DiskError: the disk refuses it, in the block or after.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    with writing_below(temporary, final):
        try:
            yield temporary
            fsync_file(temporary)
            temporary.replace(final)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(final.parent)


@contextmanager
def atomic_dir(final: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `final` by rename when the block ends without an error.

    A leftover temporary of an earlier crash is replaced. `final` must not exist.

    Raises:
        DiskError: the disk refuses it, in the block or after.
    """
    temporary = final.with_name(f".tmp-{final.name}")
    with writing_below(temporary, final):
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        try:
            yield temporary
            for path in sorted(temporary.rglob("*")):
                if path.is_file():
                    fsync_file(path)
            fsync_folder(temporary)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_folder(final.parent)

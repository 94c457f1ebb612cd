"""What a file system refuses, as one line that names the file and what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from persianmind.common.errors import DiskError

# Libraries in Rust raise errors of their own, which end in this.
_RUST = re.compile(r"\(os error (\d+)\)")
_ROOM, _RIGHTS = "make room", "change its owner or permissions"
_FAILING = "look at the disk (`dmesg`), or give another place"
_GONE = "see that the folder is still there"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # said of nothing but files
# What a file system says that is no mistake in a program; and what helps.
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: f"{_ROOM}, or raise the limit (`ulimit -f`)",
    errno.EROFS: "make it writable, or give another place",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: _FAILING,
    errno.ESTALE: _FAILING,
    errno.ENODEV: _FAILING,
    errno.ENXIO: _FAILING,
}


def disk_error(error: BaseException, path: Path | None = None) -> DiskError | None:
    """The line for an error that a file system caused, whichever library raised it; None for any other.

    Args:
        path: the file, where the error does not name one.
    """
    if isinstance(error, DiskError):
        return error
    number, place = _number(error), _named_file(error) or path
    # Without a file "permission denied" may be anything's, a port's for one.
    is_disk = number in _FULL or (number in _REMEDIES and place is not None)
    return _error(number, place) if is_disk else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """For a block that does nothing but write `path`.

    Raises:
        DiskError: for every OSError of the block.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise _error(_number(error), path, str(error)) from None


@contextmanager
def writing_below(folder: Path, shown: Path) -> Iterator[None]:
    """For a block that also reads and computes while it writes into `folder`.

    Args:
        shown: the name for whatever lies in the folder, which is itself a temporary one.

    Raises:
        DiskError: for what only a file system says, whichever library says it.
    """
    try:
        yield
    except DiskError as error:
        raise DiskError(str(error).replace(str(folder), str(shown))) from None
    except Exception as error:
        if (named := disk_error(error, shown)) is None:
            raise
        place = _named_file(error)
        is_inside = place is not None and place.is_relative_to(folder)
        raise (_error(_number(error), shown) if is_inside else named) from None


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A folder in the system's place for temporary files, removed afterwards.

    Raises:
        DiskError: it cannot be made.
    """
    with ExitStack() as stack:
        with writing(Path(os.environ.get("TMPDIR", "/tmp"))):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
        yield Path(name)


def existing_folder(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.resolve().parents) if path.is_dir())


def _number(error: BaseException) -> int:
    """The errno; 0 where there is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _RUST.search(str(error))
    return int(found[1]) if found else 0


def _named_file(error: BaseException) -> Path | None:
    """The file that an error names; of two, where it copied to."""
    names = [getattr(error, name, None) for name in ("filename2", "filename")]
    return next((Path(name) for name in names if isinstance(name, str | Path)), None)


def _error(number: int, path: Path | None, otherwise: str = "") -> DiskError:
    reason = os.strerror(number) if number else otherwise
    remedy = _REMEDIES.get(number, _GONE)
    where = f"{path}: " if path else "a file cannot be written: "
    room = _room(path) if remedy == _ROOM else ""
    return DiskError(
        f"{where}{reason[:1].lower()}{reason[1:]}{room}; {remedy} and give the same command again"
    )


def _room(path: Path | None) -> str:
    """ " (3 MiB free of 953,674)" of its disk; of a quota nothing can be asked."""
    try:
        usage = shutil.disk_usage(existing_folder((path or Path()).parent))
    except (OSError, StopIteration):
        return ""
    return f" ({usage.free >> 20:,} MiB free of {usage.total >> 20:,})"

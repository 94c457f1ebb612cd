"""A disk that refuses is one line that names the file, and leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from persianmind.common import atomic, console, disk
from persianmind.common.atomic import append_bytes, append_line, atomic_dir, atomic_file, write_bytes
from persianmind.common.console import run_guarded
from persianmind.common.disk import disk_error, scratch_folder, writing
from persianmind.common.errors import DiskError, MachineError
from persianmind.common.lock import OwnedLock
from tests.support.full_disk import full_disk


def refused(number: int, *files: str) -> OSError:
    return OSError(number, os.strerror(number), *files)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            refused(errno.ENOSPC),
            "here: no space left on device (7 MiB free of 9,536); make room and give the",
        ),
        (refused(errno.EDQUOT), "here: disk quota exceeded (7 MiB free of 9,536); make room and give"),
        (refused(errno.EFBIG), "here: file too large; make room, or raise the limit (`ulimit -f`) and give"),
        (refused(errno.EROFS), "here: read-only file system; make it writable, or give another place and"),
        (
            refused(errno.EACCES, "there"),
            "there: permission denied; change its owner or permissions and",
        ),
        (
            refused(errno.EIO, "there"),
            "there: input/output error; look at the disk (`dmesg`), or give",
        ),
        (Exception("No space left on device (os error 28)"), "here: no space left on device (7 MiB free of"),
    ],
)
def test_what_a_file_system_says_is_named_with_the_fix(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=7 << 20, total=10_000_000_000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    found = disk_error(error, Path("here"))
    assert found is not None and str(found).startswith(line), str(found)
    assert str(found).endswith("give the same command again")
    assert isinstance(found, MachineError) and isinstance(found, OSError) and found.exit_code == 11


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        FileNotFoundError(errno.ENOENT, "No such file", "a"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        refused(errno.EACCES),  # of a port, say
    ],
)
def test_other_errors_are_not_taken_for_a_disk(error: Exception) -> None:
    assert disk_error(error) is None


def test_the_file_copied_to_is_the_one_that_is_named() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "from", None, "to")
    assert str(disk_error(error)).startswith("to: ")


# --- the writers ------------------------------------------------------------------------------------------
def _whole(path: Path) -> None:
    write_bytes(path, b"x" * 5000)


def _appended(path: Path) -> None:
    append_line(path, "x" * 5000)


def _events(path: Path) -> None:
    append_bytes(path, b"x" * 5000, durable=True)


def _file(path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"x" * 5000)


def _folder(path: Path) -> None:
    with atomic_dir(path) as folder:
        (folder / "a").write_bytes(b"small")
        save_file({"w": np.zeros(5000)}, folder / "b.safetensors")


def _lock(path: Path) -> None:
    with OwnedLock(path):
        pass


WRITERS: list[tuple[Callable[[Path], None], int]] = [
    (_whole, 100),
    (_appended, 100),
    (_events, 100),
    (_file, 100),
    (_folder, 100),
    (_lock, 10),
]


@pytest.mark.parametrize(("write", "limit_bytes"), WRITERS)
def test_a_writer_on_a_full_disk_names_its_file_and_leaves_nothing(
    tmp_path: Path, write: Callable[[Path], None], limit_bytes: int
) -> None:
    path = tmp_path / "file"
    with full_disk(limit_bytes), pytest.raises(DiskError) as caught:
        write(path)
    assert str(caught.value).startswith(f"{path}: file too large; make room"), caught.value
    assert sum(one.stat().st_size for one in tmp_path.rglob("*") if one.is_file()) == 0
    write(path)  # the control: with room it goes through


def test_control_without_the_naming_it_is_a_bare_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_error", lambda *_: SafetensorError("unnamed"))
    with full_disk(10), pytest.raises(SafetensorError, match="unnamed"):
        _whole(tmp_path / "file")


def test_an_append_that_is_cut_short_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    with full_disk(6), pytest.raises(DiskError):
        append_line(path, "two and three")
    assert path.read_bytes() == b"one\n"
    monkeypatch.setattr(atomic.os, "ftruncate", lambda *_: None)  # the control: a part of the line stays
    with full_disk(6), pytest.raises(DiskError):
        append_line(path, "two and three")
    assert path.read_bytes() == b"one\ntw"
    append_line(path, "four")
    assert path.read_bytes() == b"one\ntw\nfour\n", "a line that was cut short is closed before the next"


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"gone/lines: no such file or directory; see that the folder is"):
        append_line(tmp_path / "gone" / "lines", "one")


def test_no_place_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setenv("TMPDIR", "/scratch")
    monkeypatch.setattr(disk.tempfile, "TemporaryDirectory", none)
    with pytest.raises(DiskError, match=r"^/scratch: "), scratch_folder("x"):
        pass


def test_an_error_of_our_own_inside_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_dir(tmp_path / "out"):
        (tmp_path / "nothing").read_bytes()
    with pytest.raises(DiskError, match=r"^first"), writing(Path("second")), writing(Path("first")):
        raise refused(errno.EIO)
    assert not list(tmp_path.iterdir())


# --- the console ------------------------------------------------------------------------------------------
def _raises(error: Exception) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def test_what_no_writer_named_is_still_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rust() -> None:
        with full_disk(10):
            save_file({"w": np.zeros(5000)}, tmp_path / "w.safetensors")

    for action in (_raises(refused(errno.ENOSPC, "some/file")), rust):
        assert run_guarded(action, rank=1) == 11
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("persianmind: error: rank 1: "), lines
        assert "make room" in lines[0]
    monkeypatch.setattr(console, "disk_error", lambda error: None)  # the control: a traceback
    assert run_guarded(rust) == 1 and "Traceback" in capsys.readouterr().err


def test_the_exit_code_survives_a_standard_error_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise refused(errno.ENOSPC)

    monkeypatch.setattr(console, "print_line", full)
    assert run_guarded(_raises(DiskError("x"))) == 11


def test_the_full_disk_of_these_tests_ends_with_its_block(tmp_path: Path) -> None:
    with full_disk():
        pass
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert shutil.disk_usage(tmp_path).total > 0

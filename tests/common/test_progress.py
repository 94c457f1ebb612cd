"""What takes long counts its work: each of these would otherwise look like a hang."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from persianmind.common.checksum import hash_file
from persianmind.common.lock import held_when_free
from persianmind.common.poll import wait_until
from persianmind.common.progress import CountedWriter, counted, work_done
from persianmind.language.persian import PROFILE
from persianmind.recipe import Source
from persianmind.text.lines import numbered_lines
from persianmind.text.sources.locate import locate
from persianmind.text.stream import read_records
from persianmind.vocab.count import ChunkCounter
from persianmind.vocab.learn import continue_bpe
from tests.data.helpers import write_jsonl


def _source(folder: Path) -> Source:
    return Source(uri=str(write_jsonl(folder / "a.jsonl", [{"text": "متن"}] * 50)))


def _records(folder: Path) -> None:
    assert len(list(read_records("a", _source(folder)))) == 50


def _skipped_lines(folder: Path) -> None:
    """Also what a resumed build passes over without a record."""
    (file,) = locate("a", _source(folder))
    assert len(list(numbered_lines(file))) == 50  # type: ignore[arg-type]


def _hash(folder: Path) -> None:
    (folder / "a").write_bytes(b"x" * 100)
    hash_file(folder / "a")


def _merged_counts(folder: Path) -> None:
    counter = ChunkCounter(folder, PROFILE.script, max_in_memory=2)
    for text in ("یک دو سه", "چهار پنج شش"):
        counter.add(text)
    assert len(counter.most_common(10)) == 6


def _pieces(folder: Path) -> None:
    token_bytes = {number: bytes([97 + number]) for number in range(4)}
    learned = continue_bpe(
        {(0, 1, 2): 5, (1, 2, 3): 4}, token_bytes, first_id=4, limit=3, is_valid_piece=lambda _: True
    )
    assert len(learned.pieces) == 3


def _download(folder: Path) -> None:
    handle = io.BytesIO()
    writer = CountedWriter(handle)
    assert writer.write(b"abc") == 3 and writer.tell() == 3  # type: ignore[operator]


@pytest.mark.parametrize("busy", [_records, _skipped_lines, _hash, _merged_counts, _pieces, _download])
def test_long_work_is_counted(tmp_path: Path, busy: Callable[[Path], None]) -> None:
    before = work_done()
    busy(tmp_path)
    assert work_done() > before


def test_nothing_is_counted_where_nothing_is_done() -> None:
    """The control: time alone, and an iterator that is not asked."""
    before = work_done()
    counted([1, 2])
    assert not wait_until(lambda: False, timeout_s=0.3, interval_s=0.01)
    assert work_done() == before


@pytest.mark.parametrize("grows", [True, False])
def test_the_work_of_the_process_that_holds_the_lock_counts_for_who_waits(
    tmp_path: Path, grows: bool
) -> None:
    made, lock = tmp_path / "made", tmp_path / "lock"
    holder = FileLock(lock, thread_local=False)
    holder.acquire()
    taken = threading.Event()

    def wait() -> None:
        with held_when_free(FileLock(lock, thread_local=False), made):
            taken.set()

    thread = threading.Thread(target=wait)
    before = work_done()
    thread.start()
    for number in range(10):
        if grows:
            made.write_bytes(b"x" * number)
        assert not taken.wait(0.1)
    seen = work_done() - before
    holder.release()
    assert taken.wait(30)
    thread.join()
    assert (seen >= 2) if grows else (seen == 0)

"""Saving beside training: it overlaps, one at a time, and its errors surface where all ranks look."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from persianmind.checkpoint.background import BackgroundSaver
from persianmind.checkpoint.group import SOLO
from persianmind.common.errors import CheckpointWriteError
from tests.checkpoint.helpers import make_store, on_ranks, write_contents


def test_start_returns_while_the_save_is_still_writing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    saver = BackgroundSaver(store, SOLO)
    go_on = threading.Event()

    def write(folder: Path) -> None:
        assert go_on.wait(20)
        write_contents(1)(folder)

    saver.start(1, {}, write)
    assert not (tmp_path / "step-1").exists() and store.newest_good() is None  # not committed: not there
    go_on.set()
    assert saver.finish() == tmp_path / "step-1"
    assert saver.finish() is None  # nothing runs any more


def test_a_second_start_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    saver = BackgroundSaver(make_store(tmp_path), SOLO)

    def write(step: int) -> Any:
        def work(folder: Path) -> None:
            order.append(f"begin {step}")
            write_contents(step)(folder)
            order.append(f"end {step}")

        return work

    for step in (1, 2, 3):
        saver.start(step, {}, write(step))
    saver.finish()
    assert order == [f"{what} {step}" for step in (1, 2, 3) for what in ("begin", "end")]
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-1", "step-2", "step-3"}


@pytest.mark.parametrize("where", ["start", "finish"])
def test_error_surfaces_at_the_next_call_on_every_rank(tmp_path: Path, where: str) -> None:
    def work(group: Any) -> str:
        saver = BackgroundSaver(make_store(tmp_path), group)

        def write(folder: Path) -> None:
            if group.rank == 1:
                raise OSError(28, "No space left on device")
            write_contents(1)(folder)

        saver.start(1, {}, write)
        with pytest.raises(CheckpointWriteError) as failed:
            if where == "start":
                saver.start(2, {}, write_contents(2))
            else:
                saver.finish()
        assert saver.finish() is None  # said once; the next save may be tried
        return str(failed.value)

    messages = on_ranks(2, work)
    assert messages[0] == messages[1] and "rank 1: OSError" in messages[0]
    assert list(tmp_path.iterdir()) == []

"""What a worker does before it trains: the second attempt waits for the first one's lock."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from persianmind.cluster import worker
from persianmind.common import poll
from persianmind.run.folder import RunFolder, RunLock
from tests.common.test_poll import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(poll, "time", one)
    return one


def test_a_held_lock_is_waited_for_with_a_few_lines(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with RunLock(RunFolder(tmp_path)):
        worker.wait_for_lock(RunFolder(tmp_path))
    assert sum(clock.slept_s) == worker.LOCK_WAIT_S
    assert len(clock.slept_s) == worker.LOCK_WAIT_S / worker.LOCK_POLL_S
    lines = [record.message for record in caplog.records]
    assert [line.split(", ")[1].split(" s")[0] for line in lines] == ["0", "10", "30", "70"]
    assert all("is in use by pid" in line for line in lines)


def test_a_free_lock_is_not_waited_for(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker.wait_for_lock(RunFolder(tmp_path))
    assert clock.slept_s == [] and caplog.records == []
    with RunLock(RunFolder(tmp_path)):  # and it is left free
        pass

"""A ledger on a full disk: nothing is lost once there is room; where there never is, the account says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.atomic import append_line
from persianmind.common.checksum import dump_checked_line
from persianmind.energy.ledger import read_ledger
from persianmind.energy.meter.client import EnergyMeter
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from tests.energy.ledgers import start, stop
from tests.energy.test_sampler import Clock, ledger_of, make, train
from tests.support.full_disk import full_disk


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    from persianmind.energy.meter import sampler

    clock = Clock()
    monkeypatch.setattr(sampler.time, "monotonic", clock)
    return clock


def _joules(run: Path) -> float:
    return float(summarise(ledger_of(run), Energy())["kwh"] * 3.6e6)


def test_what_was_counted_on_a_full_disk_is_written_once_there_is_room(tmp_path: Path, clock: Clock) -> None:
    sampler, _, sent = make(tmp_path, clock)
    sampler.begin([])
    with full_disk(600):
        for step in range(1, 4):
            clock.now_s += 10
            sampler.mark(train(clock, step))
            sampler.tick()
            sampler.flush()
    assert _joules(tmp_path) < 3000, "the control: it is not there yet"
    clock.now_s += 10
    sampler.end("stopped")
    assert _joules(tmp_path) == pytest.approx(40 * 110)
    said = [one["message"] for one in sent if "message" in one]
    assert len(said) == 2 and said[0].startswith("the ledger waits in memory for its disk: ")
    assert str(RunFolder(tmp_path).ledger("a")) in said[0] and "nothing is missing" in said[1]
    assert ledger_of(tmp_path).problems == []


def test_what_is_never_written_is_said_and_missing_in_the_account(tmp_path: Path, clock: Clock) -> None:
    sampler, _, sent = make(tmp_path, clock)
    sampler.begin([])
    with full_disk(600):
        clock.now_s += 10
        sampler.end("stopped")
    said = [one["message"] for one in sent if "message" in one]
    assert "lines of the ledger are lost: the account lacks their energy" in said[-1]
    for line in (start("2", "a"), stop("2", "a")):  # the next attempt, with room
        text = dump_checked_line(line.model_dump(mode="json"))
        append_line(RunFolder(tmp_path).ledger("a"), text)
    problems = summarise(ledger_of(tmp_path), Energy())["problems"]
    assert any("all that it counted while its disk was full" in text for text in problems), problems


def test_the_note_of_a_lost_meter_is_written_at_the_end_if_not_before(tmp_path: Path) -> None:
    meter = EnergyMeter(RunFolder(tmp_path), node="a", options=Energy())
    RunFolder(tmp_path).energy.mkdir()
    with full_disk(10):
        meter._lost(-9)
    assert not any("signal 9" in text for text in read_ledger(RunFolder(tmp_path)).problems)
    meter.stop()
    assert any("signal 9" in text for text in read_ledger(RunFolder(tmp_path)).problems)

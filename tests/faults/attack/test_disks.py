"""A disk that fills, goes read-only or goes away in each phase of the line: one named error, and once it is
back the same command ends with the same bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from persianmind.common.poll import wait_until
from tests.faults.attack.attempts import ForkedAttempt, reach
from tests.faults.attack.conftest import Target
from tests.faults.attack.disks import cannot_mount, full, mounted, read_only, vanished
from tests.faults.attack.line import PHASES, assert_same_line
from tests.faults.attack.schedule import Kill
from tests.faults.fleet import Fleet
from tests.faults.helpers import count, is_long

pytestmark = [pytest.mark.integration, pytest.mark.more]
END_WITHIN_S = 200.0  # a preparation that counts nothing gets two minutes
SHORT = ("vocabulary", "step", "export")
AT = [phase for phase in PHASES if phase != "resume" and (is_long() or phase in SHORT)]
FAULTS = {
    "full disk in a phase of the line": full,
    "read-only disk in a phase of the line": read_only,
    "vanished run folder in a phase of the line": vanished,
}


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of its own, on a short path."""
    with tempfile.TemporaryDirectory(prefix="persianmind-") as folder:
        if (why := cannot_mount(Path(folder) / "disk")) is not None:
            pytest.skip(why)
        with mounted(Path(folder) / "disk") as place:
            yield place


@pytest.mark.parametrize("line", FAULTS)
def test_a_disk_that_goes_bad_in_each_phase_ends_the_run_by_name_and_loses_nothing(
    fleet: Fleet, target: Target, disk: Path, line: str
) -> None:
    run, fault = disk / "run", FAULTS[line]
    progress = iter((0.2, 0.5, 0.6))
    came: set[str] = set()
    attempt, observer = ForkedAttempt(fleet, target.recipe, run), target.observer(run)
    for phase in AT:
        at = next(progress) if phase in ("step", "save", "evaluate") else 0.0
        if not reach(attempt, observer, Kill(phase, "disk", 0.2, at), target.seconds):
            continue  # past already: the next fault comes upon the same attempt
        print(f"{line}: {phase}", flush=True)
        _break(fault, disk, attempt)
        count(line, 1, 1)
        came.add(phase)
        attempt, observer = ForkedAttempt(fleet, target.recipe, run), target.observer(run)
    assert came >= {"step", "export"}, came  # these last long enough to be met
    again = attempt.finish()
    assert again.code == 0, again.text
    assert_same_line(again, target.whole)


def _break(fault: Callable[[Path], AbstractContextManager[None]], disk: Path, attempt: ForkedAttempt) -> None:
    """The fault until the attempt has ended, which it must do by itself and without a traceback."""
    with fault(disk):
        assert wait_until(attempt.has_ended, timeout_s=END_WITHIN_S), "it goes on without its disk"
        ended = attempt.finish()
        assert wait_until(lambda: not attempt.processes(), timeout_s=60), sorted(attempt.processes())
    if ended.code:  # else it had nothing left to write
        assert ended.errors, ended.text
    assert "Traceback" not in ended.text, ended.text

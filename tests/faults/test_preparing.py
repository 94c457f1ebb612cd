"""Rank 0 stops, dies or fails alone while it prepares, or its builder does: no rank waits for ever.

Ranks are unsupervised but for one test: as on another machine, nobody ends them when one has ended.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.errors import BuildFailedError, BuildStalledError, HangError
from tests.faults.faulty_preparation import QUICK_S, REASON, SLOW_S
from tests.faults.fleet import Fleet, FleetRun
from tests.faults.helpers import BARE, count

pytestmark = pytest.mark.integration
APART = {"LOCAL_SIZE": "1"}  # each rank on a machine of its own
STILL_S = 30.0  # those that are watched have ended by then
HANGS = HangError.exit_code


def start(
    fleet: Fleet, folder: Path, fault: str, *, supervised: bool = False, timeout_s: float = 120
) -> FleetRun:
    """From nothing, in a folder of its own."""
    return fleet.run(
        folder / "run",
        *BARE,
        fault=f"quick:0:0;{fault}",
        environment=APART,
        supervised=supervised,
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize("kind", ["freeze", "kill"])
def test_a_rank_0_that_stops_or_dies_ends_the_others(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    """The one that is stopped is killed from outside once the first has ended."""
    ended = start(fleet, tmp_path, f"prepare-{kind}:0:0", supervised=kind == "freeze")
    assert ended.codes == [-9, HANGS], ended.text
    (line,) = ended.errors
    assert line.startswith("persianmind: error: rank 1: rank 0 (pid "), line
    assert "preparing vocabulary of " in line and "gives no sign of life" in line and " on " in line
    count("rank 0 stops, dies, hangs or fails while it prepares", 1, 1)


def test_a_rank_0_that_hangs_ends_and_so_do_the_others(fleet: Fleet, tmp_path: Path) -> None:
    ended = start(fleet, tmp_path, "prepare-hang:0:0")
    assert ended.codes == [HANGS, HANGS], ended.text
    assert len(ended.errors) == 2 and "Traceback" not in ended.text
    for line in ended.errors:
        assert "rank 0 (pid " in line and "preparing vocabulary of " in line, line
        assert "faulty_preparation.py" in line, "where it stands"
    count("rank 0 stops, dies, hangs or fails while it prepares", 1, 1)


def test_a_rank_0_that_fails_alone_tells_the_other_machines(fleet: Fleet, tmp_path: Path) -> None:
    ended = start(fleet, tmp_path, "prepare-fail:0:0")
    assert ended.codes == [2, HANGS], ended.text
    first, second = sorted(ended.errors, key=len)
    assert first == f"persianmind: error: {REASON}"
    assert second.endswith(f" failed: {REASON}") and "preparing vocabulary of " in second
    count("rank 0 stops, dies, hangs or fails while it prepares", 1, 1)


@pytest.mark.more
@pytest.mark.parametrize("kind", ["freeze", "hang"])
def test_control_without_the_watch_the_others_still_wait(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    ended = start(fleet, tmp_path, f"prepare-{kind}:0:0;unwatched-preparation:0:0", timeout_s=STILL_S)
    assert ended.codes == [-9, -9] and not ended.errors, ended.text


def test_a_preparation_that_is_slow_is_no_hang(fleet: Fleet, tmp_path: Path) -> None:
    """Three times the limit, with work that is counted all the time: it comes to its own end."""
    assert SLOW_S >= 3 * QUICK_S
    ended = start(fleet, tmp_path, "prepare-slow:0:0")
    assert ended.codes == [2, HANGS] and ended.seconds > SLOW_S, ended.text
    assert all(line.endswith(REASON) for line in ended.errors) and len(ended.errors) == 2


# --- the builder beside training --------------------------------------------------------------------------
def test_a_full_disk_while_data_are_built_ends_all_ranks_with_one_line(fleet: Fleet, tmp_path: Path) -> None:
    ended = start(fleet, tmp_path, "builder-full:0:0")
    assert ended.codes == [BuildFailedError.exit_code] * 2, ended.text
    (line,) = ended.errors
    assert f"{tmp_path / 'run' / 'data'}" in line and "file too large; make room" in line
    assert "Traceback" not in ended.text
    assert not list(tmp_path.glob("run/data/*/failed.json"))
    count("full disk while data are built, builder stopped", 1, 1)


def test_a_builder_that_stands_still_ends_all_ranks_and_is_named(fleet: Fleet, tmp_path: Path) -> None:
    ended = start(fleet, tmp_path, "builder-stop:0:0")
    assert ended.codes[0] == BuildStalledError.exit_code, ended.text
    (line,) = ended.errors
    assert "the process that builds sources." in line and "got nothing done for" in line
    assert f"{tmp_path / 'run' / 'builder.log'}" in line and "Traceback" not in ended.text
    count("full disk while data are built, builder stopped", 1, 1)


@pytest.mark.more
@pytest.mark.parametrize("kind", ["builder-full", "builder-stop"])
def test_control_a_builder_that_nobody_judges_is_waited_for(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    ended = start(fleet, tmp_path, f"{kind}:0:0;unjudged-builder:0:0", timeout_s=STILL_S)
    assert ended.codes == [-9, -9] and not ended.errors, ended.text

"""kill -9 anywhere on the whole line, of any process of a run; the same command ends with the same bytes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from persianmind.common.poll import wait_until
from tests.faults.attack.attempts import Attempt, LaunchedAttempt, reach
from tests.faults.attack.conftest import Target
from tests.faults.attack.line import BUILDER, LAUNCHER, METER, assert_same_line, lasting_bytes
from tests.faults.attack.schedule import SEED, Kill, draw_kills
from tests.faults.helpers import count, is_long

pytestmark = [pytest.mark.integration, pytest.mark.more]
KILLS_A_RUN = 5
RUNS, LAUNCHED_RUNS = (24 if is_long() else 1), 4
LINE = "kill -9 over the whole line: ranks, builder, meter"
LAUNCHER_LINE = "kill -9 over the whole line through the launcher: launcher, ranks, builder, meter"


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_kills_over_the_whole_line_change_no_byte(
    attempts: Callable[..., Attempt], target: Target, tmp_path: Path, seed: int
) -> None:
    _attack(attempts, target, tmp_path / "run", draw_kills(seed, KILLS_A_RUN), LINE)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEED, SEED + LAUNCHED_RUNS))
def test_kills_through_the_launcher_change_no_byte(target: Target, tmp_path: Path, seed: int) -> None:
    run = tmp_path / "run"
    kills = draw_kills(seed, KILLS_A_RUN, launcher=True)
    _attack(lambda: LaunchedAttempt(target.recipe, run), target, run, kills, LAUNCHER_LINE)


def _attack(
    start: Callable[[], Attempt], target: Target, run: Path, kills: Sequence[Kill], line: str
) -> None:
    """Every kill in its turn; a run that one left alive takes the next; the end is that of `target`."""
    attempt, observer = start(), target.observer(run)
    for kill in kills:
        if not reach(attempt, observer, kill, target.seconds):
            continue  # past already, or all done: only a meter died on the way
        phase, victims = observer.phase(), attempt.processes()
        victim = kill.victim if kill.victim in victims else "rank 0"
        if victim not in victims:
            continue
        victims[victim].send_signal(signal.SIGKILL)
        print(f"kill -9 of {victim} in {phase}; drawn: {kill}", flush=True)
        count(line, 1, 1)
        if victim != METER:
            assert wait_until(attempt.has_ended, timeout_s=120), f"{kill}: the run goes on without it"
            # Without its builder a run goes on as far as the data do, which may be to its end.
            _assert_gone(attempt, may_be_done=victim == BUILDER)
            attempt, observer = start(), target.observer(run)
    again = attempt.finish()
    assert again.code == 0, again.text
    assert_same_line(again, target.whole)


def _assert_gone(attempt: Attempt, *, may_be_done: bool) -> None:
    ended = attempt.finish()
    assert ended.code or may_be_done, ended.text
    assert wait_until(lambda: not attempt.processes(), timeout_s=60), sorted(attempt.processes())


def test_control_one_byte_of_an_export_is_seen(target: Target) -> None:
    before = lasting_bytes(target.whole.run)
    path = target.whole.run / "export" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert lasting_bytes(target.whole.run) != before
    finally:
        path.write_bytes(whole)


def test_the_schedule_reaches_every_phase_and_every_victim() -> None:
    """Over the seeds of a long run, whatever the seed it begins with."""
    kills = [kill for seed in range(SEED, SEED + 17) for kill in draw_kills(seed, KILLS_A_RUN, launcher=True)]
    assert {kill.victim for kill in kills} == {"rank 0", "rank 1", BUILDER, METER, LAUNCHER}
    assert len({kill.phase for kill in kills}) == 10

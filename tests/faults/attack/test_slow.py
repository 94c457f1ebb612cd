"""A rank that is slow, or stands still: the first changes nothing, the second is named in every phase."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from persianmind.common.errors import HangError
from persianmind.common.poll import wait_until
from tests.faults.attack.attempts import ForkedAttempt, reach
from tests.faults.attack.conftest import Target
from tests.faults.attack.line import assert_same_line
from tests.faults.attack.schedule import Kill
from tests.faults.helpers import count, is_long

pytestmark = [pytest.mark.integration, pytest.mark.more]
PULSE_S = 0.15
HANG_S = 12.0  # more than any import of this machine takes
SLOW, STOPPED = "a rank at half speed through the whole line", "SIGSTOP of a rank in a phase of the line"
NOTICED_WITHIN_S = 200.0  # a preparation that counts nothing gets two minutes whatever the setting
SHORT = (("step", "rank 1"),)
LONG = itertools.product(("vocabulary", "build", "start", "step", "evaluate"), ("rank 0", "rank 1"))
CASES = tuple(LONG) if is_long() else SHORT


@pytest.mark.parametrize("victim", [pytest.param("rank 0", marks=pytest.mark.long), "rank 1"])
def test_a_slow_rank_changes_no_byte(
    attempts: Callable[..., ForkedAttempt], target: Target, victim: str
) -> None:
    attempt = attempts()
    while not attempt.has_ended():
        process = attempt.processes().get(victim)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            if process is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            time.sleep(PULSE_S)
    done = attempt.finish()
    assert done.code == 0, done.text
    assert_same_line(done, target.whole)
    count(SLOW, 1, 1)


@pytest.mark.parametrize(("phase", "victim"), CASES)
def test_a_rank_that_stands_still_is_named_and_the_same_command_goes_on(
    attempts: Callable[..., ForkedAttempt], target: Target, tmp_path: Path, phase: str, victim: str
) -> None:
    attempt = attempts(f"train.hang_timeout_s={HANG_S}")
    kill = Kill(phase, victim, 0.3, 0.3 if phase in ("step", "evaluate") else 0.0)
    assert reach(attempt, target.observer(tmp_path / "run"), kill, target.seconds)
    stopped = attempt.processes()[victim]
    stopped.suspend()
    # As a launcher would, the fleet kills the one that stands still once the other has ended.
    assert wait_until(attempt.has_ended, timeout_s=NOTICED_WITHIN_S), f"nobody noticed {victim}"
    ended = attempt.finish()
    assert ended.code == HangError.exit_code, ended.text
    assert any(victim in line for line in ended.errors), ended.errors
    again = attempts().finish()
    assert again.code == 0, again.text
    assert_same_line(again, target.whole)
    count(STOPPED, 1, 1)

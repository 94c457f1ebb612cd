"""A stop: by which signals, where it interrupts and where it waits for a step, and when it ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from persianmind.common.errors import RunInterruptedError, SourceError
from persianmind.common.poll import wait_until
from persianmind.train import stopping as module
from persianmind.train.stopping import SIGNALS, AskedElsewhere, Stopping, stopping
from tests.support.launch import ROOT

# The main thread never comes back from its second lock, and so runs no handler; another says when it waits.
DEAF = """
import ctypes, sys, threading, time
from persianmind.train import stopping
stopping.INTERRUPTED_WITHIN_S, stopping.SAME_REQUEST_S = float(sys.argv[1]), float(sys.argv[2])
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
def say():
    looks = [None]
    while len(looks) < 30:
        time.sleep(0.01)
        at = sys._current_frames()[threading.main_thread().ident].f_lasti
        looks = [*looks, at] if at == looks[-1] else [at]
    print("ready", flush=True)
with stopping.Stopping(lambda: False):
    threading.Thread(target=say, daemon=True).start()
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """As every process starts, whatever pytest itself was started with."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def never() -> bool:
    return False


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def work_for_ever() -> None:
    wait_until(never, timeout_s=60, interval_s=0.01)
    pytest.fail("nothing interrupted it")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_wherever_the_run_stands(number: int) -> None:
    cleaned = []
    words = "run the same command to go on"
    with pytest.raises(RunInterruptedError, match=words) as stopped, Stopping(never):
        try:
            with suppress(Exception):  # whatever a package makes of errors, it is no error
                send(number)
                work_for_ever()
        finally:
            cleaned.append(True)
    assert stopped.value.exit_code == 75 and cleaned
    assert all(signal.getsignal(one) is signal.default_int_handler for one in SIGNALS)


@pytest.mark.parametrize("number", SIGNALS)
def test_at_steps_it_is_asked_for_and_nothing_is_interrupted(number: int) -> None:
    saved = pytest.raises(RunInterruptedError, match="stopped at step 7")
    with Stopping(never) as stop, saved, stop.at_steps():
        assert not stop()
        send(number)
        assert wait_until(stop, timeout_s=10)
        raise RunInterruptedError("stopped at step 7, saved")


def test_a_stop_that_no_step_answered_is_answered_after_them() -> None:
    went_on = False
    with pytest.raises(RunInterruptedError), Stopping(never) as stop:
        with stop.at_steps():
            send(signal.SIGTERM)
            assert wait_until(stop, timeout_s=10)
        went_on = True
    assert not went_on


@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_ignored_on_entry_stays_ignored(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
    with Stopping(never) as stop, stop.at_steps():
        send(number)
        assert signal.getsignal(number) is signal.SIG_IGN
        other = next(one for one in SIGNALS if one != number)  # control: signals do arrive
        with pytest.raises(RunInterruptedError), Stopping(never):
            send(other)
            work_for_ever()
        assert not stop()


def test_signals_that_come_together_are_one_request_and_a_later_one_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal's Ctrl-C reaches the ranks twice, through the launcher as well; so does a job system's
    SIGTERM."""
    ends: list[int] = []
    with Stopping(never, end=ends.append) as stop, suppress(RunInterruptedError), stop.at_steps():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            send(number)
        assert wait_until(stop, timeout_s=10)
        time.sleep(0.05)  # for what must not happen
        assert ends == []
        monkeypatch.setattr(module, "SAME_REQUEST_S", 0.0)
        send(signal.SIGTERM)
        assert wait_until(lambda: ends, timeout_s=10) == [128 + signal.SIGTERM]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("within_s", "same_s", "sent", "code"),
    [(0.1, 60, 1, 75), (60, 0, 2, 128 + signal.SIGTERM), (60, 60, 2, None)],
)
def test_code_that_python_cannot_interrupt_is_ended_in_time(
    within_s: float, same_s: float, sent: int, code: int | None
) -> None:
    """The last is the control: without a limit it stays."""
    with subprocess.Popen(
        [sys.executable, "-c", DEAF, str(within_s), str(same_s)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        for _ in range(sent):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        if code is None:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            process.kill()
        else:
            assert process.wait(30) == code


def test_the_end_of_the_launcher_asks_as_a_signal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_INTERVAL_S", 0.01)
    with pytest.raises(RunInterruptedError), Stopping(lambda: True):
        work_for_ever()
    with Stopping(lambda: True) as stop, suppress(RunInterruptedError), stop.at_steps():
        assert wait_until(stop, timeout_s=10)
    with Stopping(never) as stop:  # control
        assert not wait_until(stop, timeout_s=0.1, interval_s=0.01)


def test_what_an_interrupted_exchange_fails_with_is_the_stop_and_a_mistake_stays_one() -> None:
    with pytest.raises(RunInterruptedError), Stopping(never):
        with suppress(KeyboardInterrupt):
            send(signal.SIGTERM)
            work_for_ever()
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(SourceError), Stopping(never):
        raise SourceError("no such file")
    with pytest.raises(RuntimeError), Stopping(never):  # control: nobody asked for a stop
        raise RuntimeError("Connection closed by peer")


def test_who_hears_of_the_stop() -> None:
    asked: list[bool] = []
    with stopping(lambda: bool(asked), never) as stop, stop.at_steps():
        assert isinstance(stop, AskedElsewhere) and not stop()
        asked.append(True)
        assert stop()
    assert isinstance(stopping(None, never), Stopping)

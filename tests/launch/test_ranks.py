"""Ranks under a launcher that only starts them: what is shown, exit codes, and signals at any time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from persianmind.common.device.choice import FORCED, VISIBLE, DeviceChoice
from persianmind.common.errors import MachineError
from persianmind.common.log import LINE
from persianmind.common.poll import wait_until
from persianmind.engine.deepspeed.launch_command import launch_ranks
from persianmind.launch import ranks as ranks_module
from persianmind.launch.commands import count_ranks
from persianmind.launch.ranks import RANK_MODULE, RankProcesses
from persianmind.launch.screen import RunScreen, ScreenLog

# Prints chatter, runs the rank's code as its child, and ends with its code, as DeepSpeed's does.
LAUNCHER = """
import subprocess, sys
print("launcher: chatter", flush=True)
sys.exit(subprocess.call([sys.executable, "-c", sys.argv[1], sys.argv[2], "--recipe"]) if sys.argv[1] else 0)
"""
SAVES = f"""
import signal, sys, time
def save(number, frame):
    for rank in ("rank 1: ", ""):
        print(f"{LINE}persianmind: error: {{rank}}stopped at step 3, saved", file=sys.stderr, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("{LINE}step 1", flush=True)
time.sleep(60)
"""
WAITS = "import time; time.sleep(60)"


@pytest.fixture(autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """A suite that a shell started in the background would have inherited that Ctrl-C is ignored."""
    before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def started(rank: str, folder: Path, launcher: str = LAUNCHER) -> RankProcesses:
    screen = RunScreen(ScreenLog(folder / "run.log", lambda: True))
    return RankProcesses([sys.executable, "-c", launcher, rank, RANK_MODULE], os.environ, screen)


def wait_and_signal(processes: RankProcesses, folder: Path, *signals: tuple[int, str]) -> int:
    """`wait`, with each signal to this process once the log holds its word."""
    log = folder / "run.log"

    def is_said(word: str) -> bool:
        return log.is_file() and word in log.read_text("utf-8")

    def send() -> None:
        for number, word in signals:
            wait_until(partial(is_said, word), interval_s=0.02, timeout_s=60)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    code = processes.wait()
    thread.join()
    return code


@pytest.mark.parametrize("code", [0, 3, 10])
def test_exit_codes_pass_and_chatter_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    says = f'print("{LINE}persianmind: error: why", file=sys.stderr); ' if code else ""
    rank = f'import sys; print("library: hello"); {says}sys.exit({code})'
    assert started(rank, tmp_path).wait() == code
    assert capsys.readouterr() == ("", "persianmind: error: why\n" if code else "")
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "launcher: chatter" in log and "library: hello" in log


def test_an_end_without_a_reason_shows_the_last_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started('raise RuntimeError("a bug")', tmp_path).wait() == 1
    shown = capsys.readouterr().err
    assert "RuntimeError: a bug" in shown
    assert "status 1 and gave no reason" in shown and str(tmp_path / "run.log") in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_ranks_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert wait_and_signal(started(SAVES, tmp_path), tmp_path, (number, "step 1")) == 75
    shown = capsys.readouterr().err
    assert shown == "persianmind: stopped at step 3, saved\n"  # once, though each rank says it


def test_without_the_request_they_would_not_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: ranks that are not found are ended where they stand."""
    monkeypatch.setattr(ranks_module, "RANK_MODULE", "another.module")
    assert wait_and_signal(started(SAVES, tmp_path), tmp_path, (signal.SIGTERM, "step 1")) == 75
    assert capsys.readouterr().err == "persianmind: stopped; the same command goes on\n"


def test_a_signal_before_there_are_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = 'import time; print("launcher: chatter", flush=True); time.sleep(60)'
    assert wait_and_signal(started(WAITS, tmp_path, launcher), tmp_path, (signal.SIGINT, "chatter")) == 75
    assert capsys.readouterr().err == "persianmind: stopped; the same command goes on\n"


def test_a_second_signal_ends_ranks_that_do_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = f'import signal, time; signal.signal(15, signal.SIG_IGN); print("{LINE}deaf", flush=True); {WAITS}'
    twice = [(signal.SIGTERM, "deaf"), (signal.SIGTERM, "stopping: ")]
    assert wait_and_signal(started(deaf, tmp_path), tmp_path, *twice) == 75
    assert "the same command goes on" in capsys.readouterr().err


def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    rank = f'import time; print("{LINE}step 1", flush=True); time.sleep(1)'
    assert wait_and_signal(started(rank, tmp_path), tmp_path, (signal.SIGHUP, "step 1")) == 0


GPUS = DeviceChoice("cuda", "4 x H100", count=4)
CPU = DeviceChoice("cpu", "no GPU")


@pytest.mark.parametrize(
    ("choice", "ranks", "visible", "flag", "seen"),
    [
        (GPUS, 4, None, [], None),
        (GPUS, 2, None, ["--num_accelerators", "2"], None),
        (GPUS, 2, "3,5,6,7", [], "3,5"),  # given a count, DeepSpeed would take 0 and 1
        (GPUS, 4, "3,5,6,7", [], "3,5,6,7"),
        (CPU, 2, None, ["--num_accelerators", "2"], None),
    ],
)
def test_the_launchers_command(
    choice: DeviceChoice, ranks: int, visible: str | None, flag: list[str], seen: str | None
) -> None:
    environment = {} if visible is None else {VISIBLE: visible}
    command, variables = launch_ranks("some.module", ["--recipe", "tiny"], choice, ranks, environment)
    assert Path(command[0]).name == "deepspeed"
    assert command[1 : 1 + len(flag)] == flag and command[1 + len(flag)] == "--master_port"
    assert command[-4:] == ["--module", "some.module", "--recipe", "tiny"]
    assert variables.get(VISIBLE) == seen and variables[FORCED] == choice.kind


def test_how_many_ranks() -> None:
    assert [count_ranks(GPUS, None), count_ranks(GPUS, 3), count_ranks(CPU, None), count_ranks(CPU, 1)] == [
        4,
        3,
        2,
        1,
    ]
    with pytest.raises(MachineError, match="--gpus 5, but 4 are visible"):
        count_ranks(GPUS, 5)

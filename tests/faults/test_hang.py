"""A rank that hangs, or dies where nobody ends the others: the watchdog ends them and names it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from persianmind.common.errors import HangError
from persianmind.common.poll import wait_until
from persianmind.engine.ranks import Ranks
from persianmind.engine.registry import backend
from persianmind.run.folder import RunFolder
from persianmind.train.callbacks.watchdog import Watchdog, current_frame
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, newest_step
from tests.support.launch import Launched
from tests.support.log import logged

TIMEOUT_S = 3.0
QUICK = f"train.hang_timeout_s={TIMEOUT_S}"
STILL_S = 15.0
WAIT_FRAMES = backend().wait_frames


@pytest.mark.more
@pytest.mark.integration
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named_with_the_place_and_the_run_can_go_on(
    fleet: Fleet, fresh: Path, tiny_run: Launched, rank: int
) -> None:
    # Unsupervised: every rank must end by itself.
    ended = fleet.run(fresh, *BARE, QUICK, fault=f"hang:{rank}:6", supervised=False, timeout_s=60)
    assert ended.codes == [HangError.exit_code] * 2, ended.text
    assert (
        f"no rank made progress for {TIMEOUT_S:.0f} s (train.hang_timeout_s): rank {rank} (pid "
        in ended.errors[0]
    )
    assert "stands at faults/faulty_train.py" in ended.errors[0], ended.errors
    assert f"rank {1 - rank} (pid" not in ended.errors[0]
    assert newest_step(fresh) == 4
    if rank:
        again = fleet.run(fresh, *BARE)  # the timeout may differ when a run is taken up again
        assert again.code == 0, again.text
        assert_same_run(again, tiny_run)


@pytest.mark.integration
def test_a_rank_that_dies_or_stops_gives_no_sign_of_life(fleet: Fleet, fresh: Path) -> None:
    """Stopped, not killed: its sockets stay open, so that only the watchdog can notice. As under a launcher,
    it is killed once the first rank has ended."""
    ended = fleet.run(fresh, *BARE, QUICK, fault="freeze:1:6")
    assert ended.codes[0] == HangError.exit_code, ended.text
    assert "rank 1 (pid" in ended.errors[0] and "gives no sign of life" in ended.errors[0]


@pytest.mark.more
@pytest.mark.integration
def test_a_rank_that_hangs_in_a_save_is_named(fleet: Fleet, fresh: Path) -> None:
    """Training goes on until the next save waits for this one."""
    ended = fleet.run(fresh, *BARE, QUICK, fault="stall:1:4", supervised=False, timeout_s=60)
    assert ended.codes == [HangError.exit_code] * 2, ended.text
    assert "rank 1 (pid" in ended.errors[0] and "faulty_saves.py" in ended.errors[0], ended.errors


@pytest.mark.more
@pytest.mark.integration
def test_control_without_the_watchdog_they_still_hang(fleet: Fleet, fresh: Path) -> None:
    fault = "hang:1:6;unwatched:0:0"
    ended = fleet.run(fresh, *BARE, QUICK, fault=fault, supervised=False, timeout_s=STILL_S)
    assert ended.codes == [-9, -9] and not ended.errors  # killed from outside when the time was over


class Ends(list[int]):
    """The exit codes that watchdogs would have ended their process with."""

    def wait_for(self, count: int) -> bool:
        return bool(wait_until(lambda: len(self) >= count, timeout_s=60, interval_s=0.02))


def watchdog(run: Path, rank: int, world_size: int, ends: Ends, timeout_s: float = 0.5) -> Watchdog:
    ranks = Ranks(rank=rank, world_size=world_size, local_rank=rank, local_size=world_size)
    return Watchdog(RunFolder(run), ranks, timeout_s, WAIT_FRAMES, end=ends.append)


def test_progress_of_any_rank_keeps_all_alive(tmp_path: Path) -> None:
    """Rank 0 does nothing for three times the timeout while rank 1 makes progress."""
    ends = Ends()
    with logged() as lines, watchdog(tmp_path, 0, 2, ends), watchdog(tmp_path, 1, 2, ends) as other:
        for _ in range(15):
            time.sleep(0.1)
            other.beat()
        assert lines == [] and ends == []
        assert ends.wait_for(2)  # and when it stops, both end
    assert len(lines) == 2 and all("no rank made progress" in line for line in lines)
    assert ends == [HangError.exit_code] * 2


def test_storage_that_hangs_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends, gone = Ends(), threading.Event()
    one = watchdog(tmp_path, 0, 1, ends)
    monkeypatch.setattr(one, "_write", lambda: gone.wait(60))
    with logged() as lines, one:
        assert ends.wait_for(1)
    gone.set()
    assert "cannot be written or read; does that storage hang?" in lines[0]


STOPPED = """
import os, pathlib, signal, sys, time
from persianmind.engine.ranks import Ranks
from persianmind.run.folder import RunFolder
from persianmind.train.callbacks import watchdog
if sys.argv[2:]:
    watchdog.STOPPED_S = float("inf")
with watchdog.Watchdog(RunFolder(pathlib.Path(sys.argv[1])), Ranks(0, 1, 0, 1), 1.5, ()):
    time.sleep(0.3)
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.7)
print("went on", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("control", "code"), [((), 0), (("unguarded",), HangError.exit_code)])
def test_a_suspended_job_is_not_taken_for_one_that_hangs(
    tmp_path: Path, control: tuple[str, ...], code: int
) -> None:
    """Stopped for longer than the timeout, then continued. Control: without the rule it is ended."""
    command = [sys.executable, "-c", STOPPED, str(tmp_path), *control]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(4.0)
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == code


def test_a_run_that_is_over_is_not_watched(tmp_path: Path) -> None:
    ends = Ends()
    with logged() as lines:
        with watchdog(tmp_path, 0, 1, ends):
            pass
        time.sleep(1.0)
    assert lines == [] and ends == []


def test_where_a_thread_stands() -> None:
    ready, gone = threading.Event(), threading.Event()

    def sleeper() -> None:
        ready.set()
        gone.wait(10)

    thread = threading.Thread(target=sleeper)
    thread.start()
    ready.wait(10)
    where, waits = current_frame(thread, WAIT_FRAMES)
    assert "threading.py" in where and not waits
    assert current_frame(thread, ["tests/faults/test_hang"])[1]  # a frame of this file is below
    gone.set()
    thread.join()
    assert current_frame(thread, WAIT_FRAMES) == ("nowhere (the thread has ended)", False)


def test_the_engine_names_frames_that_exist() -> None:
    """A collective that moved to another file would make a waiting rank the one that is blamed."""
    import deepspeed.comm
    import torch.distributed.distributed_c10d

    from persianmind.engine import collectives

    files = [torch.distributed.distributed_c10d.__file__, deepspeed.comm.__file__, collectives.__file__]
    for part, file in zip(WAIT_FRAMES, files, strict=True):
        assert file is not None and part in file

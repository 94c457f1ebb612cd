"""The meter's own process: `python -m persianmind.energy.meter.process`, started by meter.py, one a node.

It takes marks (stage, step) as JSON lines on standard input and tells the running total on standard output.
It ends when standard input closes or when its parent is gone, so that no orphan outlives a training run,
however the run ended. It imports neither torch nor anything of the training.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from persianmind.energy.meter.lines import append_record, ledger_path, record
from persianmind.energy.meter.pipes import Marks, lock_node, say_on
from persianmind.energy.meter.sampler import Sampler, Setting

LOCK_WAIT_S = 5.0


def main(argument: str) -> int:
    """Runs the meter; the exit status is 0 also when it could not count, which it has said."""
    # Ctrl-C and the launcher's SIGTERM go to the whole group; the meter must outlive the last checkpoint and
    # ends with its parent in any case.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fields = json.loads(argument)
    setting = Setting(**{**fields, "run": Path(fields["run"])})
    say = say_on(sys.stdout.fileno())
    marks = Marks(sys.stdin.fileno())
    try:
        return _count(setting, marks, say)
    except Exception as error:
        message = f"the energy meter stopped: {type(error).__name__}: {' '.join(str(error).split())}"
        say({"message": message})
        _note_death(setting, message)
        return 1


def _count(setting: Setting, marks: Marks, say: Callable[[dict[str, Any]], None]) -> int:
    """Gets the node's lock, finds the hardware, and samples until the end."""
    early: list[dict[str, Any]] = []
    lock = lock_node(setting.run, setting.node)
    deadline_s = time.monotonic() + LOCK_WAIT_S
    # The meter of a run that was killed a moment ago may still be writing its last line. What passes until
    # it lets go is in its account, so ours begins after it.
    while lock is None:
        if not marks.open or os.getppid() != setting.parent:
            return 0
        if time.monotonic() > deadline_s:
            say({"message": f"another meter already counts node {setting.node}; this one counts nothing"})
            return 0
        early.extend(marks.wait(0.1))
        time.sleep(0.02)  # a pipe full of marks must not turn this into a spin
        lock = lock_node(setting.run, setting.node)
        setting = replace(setting, started_s=time.monotonic())
    with lock:
        from persianmind.energy.meter.hardware import Hardware

        sampler = Sampler(setting, Hardware(setting.country_iso, setting.cpu_tdp_w), say)
        while more := marks.wait(0.0):
            early.extend(more)
        if marks.stopped_s is None:
            sampler.begin(early)
            sampler.run(marks)
        else:
            sampler.begin(early, until_s=marks.stopped_s)
            sampler.end_before_ready()
    return 0


def _note_death(setting: Setting, message: str) -> None:
    # If the disk is what failed, the parent shows the message; more cannot be done.
    with contextlib.suppress(OSError):
        append_record(
            ledger_path(setting.run, setting.node),
            record("note", setting.attempt, setting.node, missing=True, message=message),
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

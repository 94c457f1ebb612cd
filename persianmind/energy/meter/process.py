"""The meter's own process: `python -m persianmind.energy.meter.process`, started by client.py, one per node.

It takes marks as JSON lines on standard input and sends the running total on standard output. It ends when
standard input closes or when its parent is gone, so that no orphan outlives a training run, however the run
ended. It imports neither torch nor anything of the training.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from persianmind.common.child import parent_is_gone, read_setting
from persianmind.common.lock import LockHeldError, OwnedLock
from persianmind.common.poll import wait_until
from persianmind.energy.meter.pipes import NODE_GPUS, Mark, Marks, Send, sender
from persianmind.energy.meter.sampler import MeterSetting, Sampler
from persianmind.run.energy_records import EnergyNote

LOCK_WAIT_S = 5.0


def main() -> int:
    """Runs the meter; the exit status is 0 also when it could not count, which it has sent."""
    # Terminals and launchers signal the whole group; the meter must outlive the last checkpoint and ends with
    # its parent in any case.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    if gpus := os.environ.get(NODE_GPUS):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    given = read_setting()
    setting = MeterSetting.parse(given)
    send = sender(sys.stdout.fileno())
    marks = Marks(sys.stdin.fileno())
    try:
        _count(setting, marks, send, lambda: parent_is_gone(given))
    except Exception as error:
        message = f"the energy meter stopped: {type(error).__name__}: {' '.join(str(error).split())}"
        send({"message": message})
        # If the disk is what failed, the parent shows the message; more cannot be done.
        with contextlib.suppress(OSError):
            setting.writer().write(EnergyNote, missing=True, message=message)
        return 1
    return 0


def _count(setting: MeterSetting, marks: Marks, send: Send, parent_gone: Callable[[], bool]) -> None:
    """Gets the node's lock, finds the hardware, and samples until the end."""
    early: list[Mark] = []
    with ExitStack() as stack:

        def take_lock() -> str | None:
            try:
                stack.enter_context(OwnedLock(setting.lock))
            except LockHeldError:
                return "over" if not marks.open or parent_gone() else None
            return "held"

        outcome = take_lock()
        if outcome is None:
            # The meter of a run that was killed a moment ago may still be writing its last line. What passes
            # until it lets go is in its account, so ours begins after it.
            outcome = wait_until(
                take_lock,
                timeout_s=LOCK_WAIT_S,
                interval_s=0.1,
                while_waiting=lambda: early.extend(marks.wait(0.0)),
            )
            setting = replace(setting, started_s=time.monotonic())
        if outcome == "held":
            _sample(setting, marks, early, send, parent_gone)
        elif outcome is None:
            send({"message": f"another meter already counts node {setting.node}; this one counts nothing"})


def _sample(
    setting: MeterSetting, marks: Marks, early: list[Mark], send: Send, parent_gone: Callable[[], bool]
) -> None:
    from persianmind.energy.meter.hardware import Hardware
    from persianmind.energy.meter.watch import GpuWatch

    hardware = Hardware(setting.country_iso, setting.cpu_tdp_w)
    sampler = Sampler(setting, hardware, GpuWatch(hardware.nvidia_gpus()), send)
    while more := marks.wait(0.0):
        early.extend(more)
    if marks.stopped_s is None:
        sampler.begin(early)
        sampler.run(marks, parent_gone)
    else:
        sampler.begin(early, until_s=marks.stopped_s)
        sampler.end_before_ready()


if __name__ == "__main__":
    sys.exit(main())

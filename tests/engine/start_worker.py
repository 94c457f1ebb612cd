"""Starts of real gloo ranks with something wrong; imports once, forks the ranks of each start.

    python start_worker.py OUT        writes {scenario: {"codes", "texts", "seconds"}} as JSON

A scenario is "FAULT:RANK". Every rank shows imitated GPU names, as only the names matter here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persianmind.common.console import run_guarded
from persianmind.common.device.choice import DeviceChoice
from persianmind.common.device.nvml import Gpu
from persianmind.common.log import configure_logging
from persianmind.common.poll import wait_until
from persianmind.engine.deepspeed import start
from persianmind.engine.ranks import Ranks
from persianmind.engine.rollcall import RollCall
from tests.support.launch import free_port

LIMIT_S, PATIENCE_S, UNGUARDED_S, GIVE_UP_S = 4.0, 8.0, 10.0, 25.0
# Side by side within a group: they do little but wait.
GROUPS = (
    ("none:0", "absent:1", "disagrees:1"),
    ("stopped:0", "stopped:1", "killed:1"),
    ("unreachable:1", "absent-unguarded:1", "stopped-unguarded:1"),
)


def main(out: Path) -> None:
    """Every scenario."""
    start.prepare_environment()
    import deepspeed  # noqa: F401

    start.load_cpu_kernel()
    seen = {}
    for group in GROUPS:
        starts = {scenario: Start(scenario) for scenario in group}
        seen |= {scenario: one.finish() for scenario, one in starts.items()}
    out.write_text(json.dumps(seen), encoding="utf-8")


class Start:
    """Two ranks of one start, running."""

    def __init__(self, scenario: str) -> None:
        self.fault, _, rank = scenario.partition(":")
        self.rank = int(rank)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        self.began_s = time.monotonic()
        self.files = [Path(tempfile.mkstemp()[1]) for _ in range(2)]
        self.codes: dict[int, int] = {}
        self.pids = {
            one: fork(one, self.fault if one == self.rank else "", self.fault, self.files[one])
            for one in range(2)
            if not (self.fault.startswith("absent") and one == self.rank)
        }

    def ended(self) -> bool:
        """Whether every rank has that can; one that is stopped never does."""
        for one, pid in self.pids.items():
            if one not in self.codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                self.codes[one] = os.waitstatus_to_exitcode(found[1])
        can = [one for one in self.pids if not (self.fault.startswith("stopped") and one == self.rank)]
        return all(one in self.codes for one in can)

    def finish(self) -> dict[str, Any]:
        """Waits, kills what is left, and says how it went."""
        left_s = self.began_s + (UNGUARDED_S if "unguarded" in self.fault else GIVE_UP_S) - time.monotonic()
        wait_until(self.ended, timeout_s=left_s)
        seconds = time.monotonic() - self.began_s
        for one, pid in self.pids.items():
            if one not in self.codes:
                os.kill(pid, signal.SIGKILL)
                self.codes[one] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = [path.read_text(encoding="utf-8") for path in self.files]
        return {"codes": [self.codes.get(one) for one in range(2)], "texts": texts, "seconds": seconds}


def fork(rank: int, own_fault: str, fault: str, output: Path) -> int:
    """A process that is this rank."""
    if pid := os.fork():
        return pid
    handle = os.open(output, os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os._exit(be_rank(rank, own_fault, "unguarded" in fault))


def be_rank(rank: int, fault: str, unguarded: bool) -> int:
    """Joins, with this rank's fault; returns the exit code."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "PERSIANMIND_NODE": "box0"}
    configure_logging(rank)
    gpus = tuple(Gpu(index, "NVIDIA GeForce RTX 3090", f"GPU-{index}", (8, 6)) for index in range(2))
    start.current_device = lambda: DeviceChoice("cpu", "imitated names", gpus=gpus)
    start._settings = {f"NAME={rank}": "a test sets it"}
    start.RollCall = lambda *args, **_: RollCall(*args, patience_s=PATIENCE_S)  # type: ignore[misc, assignment]
    join = start._join
    if unguarded:
        RollCall.gather = lambda self: []  # type: ignore[method-assign]
        RollCall._watch = lambda self: None  # type: ignore[method-assign]
    if fault.startswith("stopped"):
        start._join = before(join, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    if fault == "killed":
        start._join = before(join, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if fault == "unreachable":
        os.environ["MASTER_PORT"] = str(free_port())  # as behind a firewall
    agreed = {"train.precision": "fp32" if fault == "disagrees" else "bf16"}
    ranks = Ranks(rank, 2, rank, 2)
    return run_guarded(lambda: start.start_distributed(ranks, 1800.0, agreed, LIMIT_S), rank=rank)


def before(function: Callable[..., None], action: Callable[[], None]) -> Callable[..., None]:
    """The function with something done first."""

    def both(*arguments: Any) -> None:
        time.sleep(1.0)  # its heartbeat is out
        action()
        function(*arguments)

    return both


if __name__ == "__main__":
    main(Path(sys.argv[1]))

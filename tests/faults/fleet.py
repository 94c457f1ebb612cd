"""Real ranks at a fraction of the launcher's price: one process imports everything once and forks each run.

    python fleet.py        requests as JSON lines on standard input, an answer a line on standard output

A rank runs the `main` of launcher/train.py with its own flags and environment: real processes, sockets,
files, engines. Only DeepSpeed's launcher is left out; its part (when one rank fails, the others are ended)
is done here. A quarter of the tests still go through the launcher (tests/support/launch.py).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.launch import ROOT, ZERO2, Launched, free_port

# What a rank gets to end by itself after another one failed, or was killed: the launcher gives a second to
# half a minute, in which a rank can only wait for the dead one.
GRACE_S, AFTER_DEATH_S = 5.0, 0.5


class Fleet:
    """The side of the tests. One run at a time."""

    def __init__(self) -> None:
        self._sent = 0
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        run: Path,
        *overrides: str,
        ranks: int = 2,
        fault: str = "",
        flags: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        supervised: bool = True,
        ignored: Sequence[int] = (),
        timeout_s: float = 120,
    ) -> None:
        """Sends a run off; `finish` waits for it. ignored: signals that its ranks are started to ignore."""
        assert self._server.stdin is not None
        self._sent += 1
        recipe = () if "--recipe" in flags else ("--recipe", "tiny")
        request = {
            "id": self._sent,
            "arguments": ["--deepspeed", str(ZERO2), *recipe, "--output", str(run), *flags, *overrides],
            "environment": {"FAULT": fault, "MASTER_PORT": str(free_port()), **(environment or {})},
            "ranks": ranks,
            "supervised": supervised,
            "ignored": list(ignored),
            "timeout_s": timeout_s,
        }
        self._run = run
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()

    @property
    def pid(self) -> int:
        """The process whose children the ranks are."""
        return self._server.pid

    def has_answered(self) -> bool:
        """Whether `finish` returns at once."""
        assert self._server.stdout is not None
        return bool(select.select([self._server.stdout], [], [], 0)[0])

    def finish(self) -> FleetRun:
        """The run that was sent off, ended."""
        assert self._server.stdout is not None
        while (answer := json.loads(self._server.stdout.readline())).pop("id") != self._sent:
            pass  # of a run whose test gave up waiting
        return FleetRun(run=self._run, **answer)

    def run(self, run: Path, *overrides: str, **options: Any) -> FleetRun:
        """`start` and `finish`."""
        self.start(run, *overrides, **options)
        return self.finish()

    def close(self) -> None:
        self._server.communicate()


class FleetRun(Launched):
    """As from the launcher, with the exit code of every rank."""

    codes: list[int]

    def __init__(self, run: Path, codes: list[int], first: int, text: str, seconds: float, port: int) -> None:
        super().__init__(first, text, seconds, run, port)
        object.__setattr__(self, "codes", codes)


# --- the server ------------------------------------------------------------------------------------------
def serve() -> None:
    """Answers requests until standard input ends."""
    _import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_handle(request)), flush=True)


def _import_everything() -> None:
    from persianmind.engine.deepspeed.start import prepare_environment

    prepare_environment()
    import bitsandbytes  # noqa: F401
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import persianmind.data.build.builder
    import persianmind.data.build.source
    import persianmind.train.assemble
    import persianmind.train.finish
    import persianmind.vocab.build  # noqa: F401
    import tests.faults.faulty_train  # noqa: F401


def _handle(request: dict[str, Any]) -> dict[str, Any]:
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        pids = [_fork(rank, request, log) for rank in range(request["ranks"])]
        codes, first = _wait(pids, request["supervised"], started_s + request["timeout_s"])
        text = log.read_text(encoding="utf-8", errors="replace")
    return {
        "id": request["id"],
        "codes": codes,
        "first": first,
        "text": text,
        "seconds": time.monotonic() - started_s,
        "port": int(request["environment"]["MASTER_PORT"]),
    }


def _fork(rank: int, request: dict[str, Any], log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    size = str(request["ranks"])
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=size, LOCAL_SIZE=size)
    os.environ.update(MASTER_ADDR="127.0.0.1", PIDS=str(log.parent), **request["environment"])
    (log.parent / f"pid-{rank}").write_text(str(os.getpid()), encoding="ascii")
    sys.argv = ["launcher/train.py", *request["arguments"]]
    from tests.faults.faulty_train import main

    try:
        main()
    finally:
        os._exit(70)  # main ends the process itself
    raise AssertionError("unreachable")


def _wait(pids: list[int], supervised: bool, deadline_s: float) -> tuple[list[int], int]:
    """(exit code of every rank, code of the first that failed or 0); 124 for one that was out of time."""
    codes: dict[int, int] = {}
    first, kill_at_s = 0, deadline_s
    while len(codes) < len(pids):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in pids:
            codes[pid] = os.waitstatus_to_exitcode(status)
            if codes[pid] and not first:
                first = codes[pid]
                if supervised:
                    kill_at_s = min(deadline_s, time.monotonic() + (AFTER_DEATH_S if first < 0 else GRACE_S))
        elif pid == 0:
            time.sleep(0.01)
        if time.monotonic() > kill_at_s:
            first = first or 124
            _kill(pids, codes)
            kill_at_s = float("inf")
    return [codes[pid] for pid in pids], first


def _kill(pids: list[int], ended: dict[int, int]) -> None:
    for pid in pids:
        if pid not in ended:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()

"""The energy meter as the training loop sees it: start, mark, joules, stop. It never stops a training run.

The counting happens in a small process of its own (process.py): codecarbon's reads and pandas import would
otherwise hold the interpreter lock of the training process, and a counting thread dies with a kill -9 where a
process still writes its last line. What is left here is one short non-blocking write for each mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import persianmind
from persianmind.common.console import print_line
from persianmind.energy.meter.lines import append_record, ledger_path, new_attempt, record
from persianmind.recipe import Energy

STOP_WAIT_S = 10.0


def _show(message: str) -> None:
    print_line(f"persianmind: energy: {message}", sys.stderr)


class EnergyMeter:
    """Counts the joules of one node while a run goes on; exactly one a node, started by local rank 0.

    A second meter for the same node and run counts nothing and says so. `interval_s` of the options is how
    much a kill -9 of the meter itself can lose; a kill of the training process loses less than a second.

    Steps are the run's own step numbers (as in metrics.jsonl); `mark(stage, step)` is called before the work
    of `step`. `resumed_step` is the number of the last step that the loaded checkpoint holds: what an earlier
    attempt did beyond it is thrown away and becomes a line of its own in the account.
    """

    def __init__(self, run: Path, *, node: str, options: Energy, show: Callable[[str], None] = _show) -> None:
        self.run = run
        self.node = node
        self.options = options
        self.attempt = new_attempt()
        self._show = show
        self._process: subprocess.Popen[bytes] | None = None
        self._joules = 0.0
        self._rest = b""
        self._started_s = time.monotonic()

    def start(self, stage: str = "prepare", step: int = 0, *, resumed_step: int | None = None) -> Self:
        """Starts the process and returns at once. Trouble is said once, and the run goes on uncounted."""
        if not self.options.enabled or self._process is not None:
            return self
        self._started_s = time.monotonic()
        setting = {
            "run": str(self.run),
            "node": self.node,
            "attempt": self.attempt,
            "interval_s": self.options.interval_s,
            "country_iso": self.options.country_iso,
            "cpu_tdp_w": self.options.cpu_tdp_w,
            "parent": os.getpid(),
            "started_s": self._started_s,
            "stage": stage,
            "step": step,
            "resumed_step": resumed_step,
        }
        try:
            ledger_path(self.run, self.node).parent.mkdir(parents=True, exist_ok=True)
            self._process = self._spawn(json.dumps(setting))
        except OSError as error:
            self._show(f"the meter could not start ({error}); energy is not counted on {self.node}")
        return self

    def _spawn(self, setting: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "persianmind.energy.meter.process", setting],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            close_fds=True,
        )
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)  # a meter that hangs must not hang the training
        return process

    def mark(self, stage: str, step: int, *, resumed_step: int | None = None) -> None:
        """What follows belongs to `stage` and `step`. Takes some microseconds and never blocks."""
        if self._process is None:
            return
        mark: dict[str, Any] = {"stage": stage, "step": step, "s": time.monotonic()}
        if resumed_step is not None:
            mark["resumed_step"] = resumed_step
        self._send(json.dumps(mark).encode() + b"\n")
        self._drain()

    def joules(self) -> float:
        """Joules counted so far by this meter, at most about a second old; 0.0 when nothing is counted."""
        self._drain()
        return self._joules

    def watts(self) -> float | None:
        """Mean power since the start; None before the first reading."""
        joules = self.joules()
        return joules / (time.monotonic() - self._started_s) if joules > 0 else None

    def stop(self) -> None:
        """Takes the last reading and ends the process; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):  # full or broken: closing says the same, less exactly
            os.write(process.stdin.fileno(), json.dumps({"stop": time.monotonic()}).encode() + b"\n")
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._read(process)
        process.stdout.close()
        if process.returncode != 0:
            self._lost(process.returncode)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _send(self, line: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), line)  # below PIPE_BUF: all of it or nothing
        except BlockingIOError:
            return  # the meter is behind; the next mark carries the same facts
        except OSError:
            self._died()

    def _drain(self) -> None:
        if self._process is None:
            return
        if not self._read(self._process):
            self._died()

    def _read(self, process: subprocess.Popen[bytes]) -> bool:
        """Takes what the meter said; False once it has closed its end."""
        assert process.stdout is not None
        while True:
            try:
                block = os.read(process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return True
            if not block:
                return False
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        if "joules" in message:
            self._joules = float(message["joules"])
        if "message" in message:
            self._show(str(message["message"]))

    def _died(self) -> None:
        """The meter is gone while the run goes on: say it once, and leave it in the ledger."""
        process, self._process = self._process, None
        assert process is not None
        try:
            status = process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        if status != 0:
            self._lost(status)

    def _lost(self, status: int) -> None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        message = f"the meter of {self.node} ended early ({how}); training goes on, its energy is not counted"
        self._show(message)
        line = record("note", self.attempt, self.node, missing=True, message=message)
        try:
            append_record(ledger_path(self.run, self.node), line)
        except OSError as error:
            self._show(f"and the ledger cannot be written ({error})")


def _environment() -> dict[str, str]:
    """The parent's environment, with this package importable whatever the working directory is."""
    root = str(Path(persianmind.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}

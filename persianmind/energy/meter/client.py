"""The energy meter as the training loop sees it: start, mark, joules, stop. It never stops a training run.

The counting happens in a small process of its own (process.py): codecarbon's reads and pandas import would
otherwise hold the interpreter lock of the training process, and a counting thread dies with a kill -9 where a
process still writes its last line. What is left here is one short non-blocking write per mark.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import time
from types import TracebackType
from typing import Any, Self

from persianmind.common.child import start_child
from persianmind.energy.meter.lines import LedgerWriter, new_attempt
from persianmind.energy.meter.pipes import Mark, dump_stop
from persianmind.recipe import Energy
from persianmind.run.energy_records import EnergyNote
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase

STOP_WAIT_S = 10.0
PROCESS_MODULE = "persianmind.energy.meter.process"

logger = logging.getLogger(__name__)


class EnergyMeter:
    """Counts the joules of one node while a run goes on; exactly one per node, started by local rank 0.

    A second meter for the same node and run counts nothing and logs so. `interval_s` of the options is how
    much a kill -9 of the meter itself can lose; a kill of the training process loses less than a second.

    Steps are the run's own step numbers (as in metrics.jsonl); `mark` is called before the work of `step`.
    """

    def __init__(self, folder: RunFolder, *, node: str, options: Energy) -> None:
        self.node = node
        self.options = options
        self._folder = folder
        # The meter's own process numbers the attempt's lines; a note that it is lost stands among them.
        self._ledger = LedgerWriter(folder.ledger(node), node=node, attempt=new_attempt(), numbered=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._joules = 0.0
        self._rest = b""
        self._started_s = time.monotonic()

    def start(
        self,
        phase: Phase = Phase.PREPARE,
        step: int = 0,
        stage: str = "",
        *,
        resumed_step: int | None = None,
    ) -> Self:
        """Starts the process and returns at once. Trouble is logged once, and the run goes on uncounted."""
        if not self.options.enabled or self._process is not None:
            return self
        self._started_s = time.monotonic()
        setting = {
            "ledger": str(self._ledger.path),
            "lock": str(self._folder.meter_lock(self.node)),
            "node": self.node,
            "attempt": self._ledger.attempt,
            "interval_s": self.options.interval_s,
            "cpu_tdp_w": self.options.cpu_tdp_w,
            "started_s": self._started_s,
            "phase": phase,
            "stage": stage,
            "step": step,
            "resumed_step": resumed_step,
        }
        try:
            self._folder.energy.mkdir(parents=True, exist_ok=True)
            self._process = _spawn(setting)
        except OSError as error:
            _warn(f"the meter could not start ({error}); energy is not counted on {self.node}")
        return self

    def mark(self, phase: Phase, step: int, stage: str = "", *, resumed_step: int | None = None) -> None:
        """What follows belongs to this phase, stage and step. Takes some microseconds and never blocks.

        Args:
            stage: the recipe's stage in training, else the part of the phase ("data", the stage scored).
            resumed_step: the last step that the loaded checkpoint holds: what an earlier attempt did beyond
                it is thrown away and becomes a line of its own in the account.
        """
        if self._process is None:
            return
        self._send(Mark(phase, stage, step, time.monotonic(), resumed_step).dump())
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
            with contextlib.suppress(OSError):  # what a full disk kept it from saying when the meter was lost
                self._ledger.flush()
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):  # full or broken: closing says the same, less exactly
            os.write(process.stdin.fileno(), dump_stop(time.monotonic()))
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
        if self._process is not None and not self._read(self._process):
            self._died()

    def _read(self, process: subprocess.Popen[bytes]) -> bool:
        """Takes what the meter sent; False once it has closed its end."""
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
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "joules" in message:
            self._joules = float(message["joules"])
        if "message" in message:
            serious = message.get("serious", True)
            logger.log(logging.WARNING if serious else logging.INFO, "energy: %s", message["message"])

    def _died(self) -> None:
        """The meter is gone while the run goes on: log it once, and leave it in the ledger."""
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
        _warn(message)
        try:
            self._ledger.write(EnergyNote, missing=True, message=message)
        except OSError as error:
            _warn(f"and the ledger cannot be written ({error})")


def _warn(message: str) -> None:
    logger.warning("energy: %s", message)


def _spawn(setting: dict[str, Any]) -> subprocess.Popen[bytes]:
    process = start_child(
        PROCESS_MODULE,
        setting,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        os.set_blocking(stream.fileno(), False)  # a meter that hangs must not hang the training
    return process

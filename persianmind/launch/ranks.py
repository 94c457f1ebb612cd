"""Starting the ranks of this machine through the engine's launcher, and stopping them."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

import psutil

from persianmind.common.child import die_with_parent
from persianmind.common.errors import RunInterruptedError
from persianmind.common.log import MARKED
from persianmind.common.paths import PROJECT_ROOT
from persianmind.launch.screen import RunScreen

RANK_MODULE = "persianmind.launch.rank"
TICK_S = 0.5
END_S = 2.0  # for the last lines of processes that outlive the launcher
STOPPED = RunInterruptedError.exit_code
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RankProcesses:
    """A launcher with its ranks in a session of their own: a terminal's Ctrl-C reaches this process alone.

    The launcher itself would end its ranks where they stand; asked one by one they save first.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], screen: RunScreen) -> None:
        path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), environment.get("PYTHONPATH")]))
        self._screen = screen
        self._lines: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self._signals: list[int] = []
        self._asked: set[int] = set()
        self._process = subprocess.Popen(
            command,
            env={**environment, "PYTHONPATH": path, MARKED: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream, is_error), daemon=True)
            for stream, is_error in ((self._process.stdout, False), (self._process.stderr, True))
        ]

    def wait(self) -> int:
        """Shows what they say until all have ended; a signal to this process asks them to save and end, a
        second one ends them at once.

        Returns:
            The run's own exit code; `RunInterruptedError`'s where a signal ended it before it could say.
        """
        before = {one: signal.getsignal(one) for one in SIGNALS}
        for one in SIGNALS:
            if before[one] is not signal.SIG_IGN:  # nohup
                signal.signal(one, lambda number, frame: self._signals.append(number))
        for reader in self._readers:
            reader.start()
        try:
            while self._process.poll() is None:
                self._show_lines(TICK_S)
                self._pass_on_signals()
                self._screen.tick()
            self._show_last_lines()
            return self._exit_code(self._process.returncode)
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _pass_on_signals(self) -> None:
        if not self._signals:
            return
        below = _below(self._process.pid)
        ranks = [one for one in below if _is_rank(one)]
        if len(self._signals) > 1 or not ranks:  # not yet, or no longer, anything to save
            _end(psutil.Process(self._process.pid), below)
            return
        if not self._asked:
            self._screen.show("stopping: the ranks save first; Ctrl-C again ends them at once")
        for rank in ranks:
            if rank.pid not in self._asked:
                self._asked.add(rank.pid)
                _signal(rank, signal.SIGTERM)

    def _exit_code(self, status: int) -> int:
        code = 128 - status if status < 0 else status
        if self._signals and code != 0:
            if not self._screen.has_reason:
                self._screen.show("persianmind: stopped; the same command goes on", is_error=True)
            return STOPPED
        if code and not self._screen.has_reason:
            self._screen.show_tail()
            where = f"; all of it: {self._screen.log.path}" if self._screen.log.is_written else ""
            self._screen.show(
                f"persianmind: error: the run ended with status {code} and gave no reason; above are its "
                f"last lines{where}; the same command goes on from the last checkpoint",
                is_error=True,
            )
        return code

    def _read(self, stream: IO[bytes], is_error: bool) -> None:
        for line in stream:
            self._lines.put((line.decode("utf-8", "replace").rstrip("\n"), is_error))

    def _show_lines(self, within_s: float) -> None:
        """What comes within a time, at once."""
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                line, is_error = self._lines.get(timeout=left_s)
            except queue.Empty:
                return
            self._screen.take(line, is_error=is_error)

    def _show_last_lines(self) -> None:
        until_s = time.monotonic() + END_S
        for reader in self._readers:
            reader.join(max(0.0, until_s - time.monotonic()))
        while not self._lines.empty():
            line, is_error = self._lines.get()
            self._screen.take(line, is_error=is_error)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_rank(process: psutil.Process) -> bool:
    """By the module that Python runs; the launchers above have it among their arguments, further behind."""
    try:
        return RANK_MODULE in process.cmdline()[:4]
    except psutil.Error:
        return False


def _end(launcher: psutil.Process, below: Sequence[psutil.Process]) -> None:
    """At once: checkpoints are whole or not there, so nothing is lost but steps."""
    for one in (launcher, *below):
        _signal(one, signal.SIGKILL)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return

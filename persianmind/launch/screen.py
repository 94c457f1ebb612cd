"""What a run's screen shows, and its log: lines of ours go to both, other programs' to the log alone."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from persianmind.common.log import LINE, STATE
from persianmind.common.units import duration_text

# A stop that was asked for is no error, and every rank says the same.
STOPPED = re.compile(r"persianmind: error: (?:rank \d+: )?(?=stopped )")
ERASE_LINE = "\r\x1b[K"
TAIL_LINES = 20  # of other programs, shown where a run ended without a line of ours
STATE_INTERVAL_S = 30.0  # between two states in a pipe
HELD_LINES = 20_000  # the newest ones, while the disk takes none
SILENCE_S = 60.0  # after which a pipe hears that the run is alive


class ScreenLog:
    """The log file of a run: held back until the run has its folder, as nothing is written before."""

    def __init__(self, path: Path, may_write: Callable[[], bool]) -> None:
        """may_write: whether the folder is this run's by now."""
        self.path = path
        self._may_write = may_write
        self._held: deque[str] = deque(maxlen=HELD_LINES)
        self._file: TextIO | None = None

    def add(self, line: str) -> None:
        """Appends a line with its time; a full disk costs the line alone."""
        self._held.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        with contextlib.suppress(OSError):
            if self._file is None and self._may_write():
                self._file = self.path.open("a", encoding="utf-8")
            if self._file is not None:
                self._file.writelines(self._held)
                self._held.clear()
                self._file.flush()

    @property
    def is_written(self) -> bool:
        """Whether the file is there."""
        return self._file is not None

    def close(self) -> None:
        """Ends the file; what was held back is dropped."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


class RunScreen:
    """Sorts what launcher and ranks print by the marks of common/log.py."""

    def __init__(self, log: ScreenLog, *, verbose: bool = False) -> None:
        """verbose: whether lines of other programs are shown too."""
        self.log = log
        self.has_reason = False
        """Whether a line of ours said why the run ended."""
        self._verbose = verbose
        self._is_terminal = sys.stdout.isatty()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._state = ""
        self._shown_s = self._state_s = self._news_s = time.monotonic()

    def take(self, raw: str, *, is_error: bool) -> None:
        """One line as a process printed it."""
        if raw.startswith(STATE):
            self._take_state(raw.removeprefix(STATE))
        elif raw.startswith(LINE):
            self.show(raw.removeprefix(LINE), is_error=is_error)
        else:
            self._news_s = time.monotonic()
            self._tail.append(raw)
            self.log.add(raw)
            if self._verbose:
                self._write(raw, sys.stderr if is_error else sys.stdout)

    def show(self, text: str, *, is_error: bool = False) -> None:
        """A line of ours."""
        self.log.add(text)
        self._news_s = time.monotonic()
        if STOPPED.match(text):
            if self.has_reason:
                return
            text = STOPPED.sub("persianmind: ", text)
            self.has_reason = True
        self.has_reason |= is_error and text.startswith("persianmind: error:")
        self._state = ""
        self._write(text, sys.stderr if is_error else sys.stdout)

    def show_tail(self) -> None:
        """The last lines of other programs, where they are all that there is to say."""
        for line in self._tail:
            self._write(line, sys.stderr)

    def tick(self) -> None:
        """Called every now and then: says that the run is alive where nothing else did."""
        silent_s = time.monotonic() - self._shown_s
        if self._is_terminal:
            waiting = f"... {silent_s:.0f} s" if silent_s >= 1 else ""
            self._draw(self._state or waiting)
        elif silent_s >= SILENCE_S:
            self._write(self._state or self._quiet_text(), sys.stdout)

    def close(self) -> None:
        """Leaves the terminal as a shell wants it."""
        self._draw("")
        self.log.close()

    def _take_state(self, text: str) -> None:
        self._state = text
        now_s = time.monotonic()
        if self._is_terminal:
            self._draw(text)
        if now_s - self._state_s >= STATE_INTERVAL_S:
            self._state_s = now_s
            self.log.add(text)
            if not self._is_terminal:
                self._write(text, sys.stdout)

    def _quiet_text(self) -> str:
        quiet = duration_text(time.monotonic() - self._news_s)
        where = f"; {self.log.path} has all that it said" if self.log.is_written else ""
        return f"still at it, {quiet} without a word{where}"

    def _draw(self, text: str) -> None:
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._put(ERASE_LINE + text[:width], sys.stdout)

    def _write(self, text: str, stream: TextIO) -> None:
        self._draw("")
        self._put(text + "\n", stream)
        self._shown_s = time.monotonic()

    def _put(self, text: str, stream: TextIO) -> None:
        # A terminal that hung up or a reader that ended does not end the run: its log goes on.
        with contextlib.suppress(OSError):
            stream.write(text)
            stream.flush()

"""What a process says: standard logging, shown on one console.

Every module logs to `logging.getLogger(__name__)`; entry points call `configure_logging`. INFO is for people
and goes to standard output as it is, on rank 0 alone; WARNING and above go to standard error with the
program's name, on every rank. A line is one write, so that lines of several ranks stay whole; on a terminal
it appears above the live progress display, which shares the console.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

ROOT = "persianmind"
# What begins a line of ours in a pipe to a parent that tells ours from those of other programs: ASCII's
# record separator, and whether the line stays or is a state that the next one replaces.
LINE, STATE = "\x1e.", "\x1e~"
MARKED = "PERSIANMIND_MARKED_LINES"  # set for a process whose parent reads them

_is_marked = False


def mark_lines() -> None:
    """Marks every line from here on, where the parent asked for it; processes that this one starts do not."""
    global _is_marked
    _is_marked = os.environ.pop(MARKED, None) is not None


def print_state(text: str) -> bool:
    """Says how far something is, to a parent that shows it; False where none does."""
    if _is_marked:
        print_line(text, mark=STATE)
    return _is_marked


def print_line(line: str, stream: TextIO | None = None, *, mark: str = LINE) -> None:
    """Prints a line in one write (standard output unless told).

    print() under `python -u`, as launchers start ranks, writes the text and its newline apart.
    """
    stream = stream or sys.stdout
    if _is_marked:
        line = mark + line.replace("\n", "\n" + mark)
    stream.write(line + "\n")
    stream.flush()


@cache
def console() -> Console:
    """The one rich console of this process; a live display must be made on it."""
    from rich.console import Console

    return Console(highlight=False)


class LineHandler(logging.Handler):
    """One line per record: INFO to standard output, the rest to standard error, never as markup."""

    def __init__(self, rank: int) -> None:
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self._rank = f"rank {rank}: " if rank else ""

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split("\n"))
        if record.levelno >= logging.WARNING:
            kind = "error: " if record.levelno >= logging.ERROR else ""
            print_line(f"{ROOT}: {kind}{self._rank}{text}", sys.stderr)
        elif sys.stdout.isatty():
            console().print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print_line(text)


def configure_logging(rank: int = 0) -> None:
    """Sends this package's log to the console; safe to call again, the last call counts."""
    logger = logging.getLogger(ROOT)
    logger.handlers = [LineHandler(rank)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # On a CPU with bf16 instructions every import says that a kernel from the Hub is missing; it is not used
    # here (model/adapted.py keeps the layout of 4-bit weights that training needs).
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

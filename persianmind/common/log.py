"""What a process says: standard logging, shown on one console, and lines of commands.

Everything that is printed goes through `printable` here, whoever wrote it: names of files, texts of a corpus,
messages of other libraries. Modules beside this one and console.py print nothing by themselves. Every module
logs to `logging.getLogger(__name__)`; entry points call `configure_logging`. INFO is for people
and goes to standard output as it is, on rank 0 alone; WARNING and above go to standard error with the
program's name, on every rank. A line is one write, so that lines of several ranks stay whole; on a terminal
it appears above the live progress display, which shares the console.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
import traceback
import warnings
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

ROOT = "persianmind"
_KEPT = "\n\t\u200c\u200d"  # line breaks, tabs, and the joiners that some scripts are written with
_format_warning = warnings.formatwarning


def printable(text: str) -> str:
    """Foreign text for a terminal: what would move its cursor or turn its direction is written as its number.

    Line breaks, tabs and joiners (ZWNJ, ZWJ) stay. The numbers are JSON's escapes: JSON stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(one if one in _KEPT or one.isprintable() else json.dumps(one)[1:-1] for one in text)


def one_line(text: str) -> str:
    """`printable`, line breaks by their escape too: a name with one in it cannot pass for a second line."""
    return printable(text).replace("\n", "\\n")


def print_line(line: str, stream: TextIO | None = None) -> None:
    """Prints `one_line` of a text (standard output unless told)."""
    print_text(one_line(line), stream)


def print_text(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Prints `printable` of a text of one or more lines and `end`, in one write.

    print() under `python -u`, as launchers start ranks, writes the text and its newline apart. Nobody to read
    it (a terminal that hung up, a pipe whose reader ended) is no error: what follows goes nowhere.
    """
    stream = stream or sys.stdout
    try:
        stream.write(printable(text) + end)
        stream.flush()
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        _send_nowhere(stream.fileno())


def leave_lost_terminal() -> None:
    """Sends nowhere what would be written to a terminal that has hung up, where every write is an error."""
    for descriptor in (1, 2):
        try:
            is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
        except OSError:  # closed
            continue
        if is_device and not os.isatty(descriptor):
            _send_nowhere(descriptor)


def _send_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def print_traceback() -> None:
    """Prints the traceback of the exception that is being handled on standard error."""
    print_text(traceback.format_exc(), sys.stderr, end="")


@cache
def console() -> Console:
    """The one rich console of this process; a live display must be made on it."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


class LineHandler(logging.Handler):
    """One line per record: INFO to standard output, the rest to standard error, never as markup.

    A line that cannot be written (a log on a full disk) is lost, and nothing else.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self._rank = f"rank {rank}: " if rank else ""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._show(record)

    def _show(self, record: logging.LogRecord) -> None:
        text = printable(" ".join(record.getMessage().split("\n")))
        if record.levelno >= logging.WARNING:
            kind = "error: " if record.levelno >= logging.ERROR else ""
            print_line(f"{ROOT}: {kind}{self._rank}{text}", sys.stderr)
        elif sys.stdout.isatty():
            console().print(text, soft_wrap=True)
        else:
            print_line(text)


class PrintableRecord(logging.LogRecord):
    """A line of any library: what it quotes of a file or of an answer is text in its log as well."""

    def getMessage(self) -> str:
        """The message, `printable`."""
        return printable(super().getMessage())


def _printable_warning(*arguments: Any, **more: Any) -> str:
    return printable(_format_warning(*arguments, **more))


def configure_logging(rank: int = 0) -> None:
    """Sends this package's log to the console; safe to call again, the last call counts.

    Other libraries log where they did before; their lines and Python's warnings become `printable`.
    """
    logging.setLogRecordFactory(PrintableRecord)
    warnings.formatwarning = _printable_warning
    logger = logging.getLogger(ROOT)
    logger.handlers = [LineHandler(rank)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # On a CPU with bf16 instructions every import says that a kernel from the Hub is missing; it is not used
    # here (model/adapted.py keeps the layout of 4-bit weights that training needs).
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

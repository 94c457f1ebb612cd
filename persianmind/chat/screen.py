"""What a conversation looks like: text as the model wrote it, on a terminal or in a pipe.

Right-to-left text gets no direction marks or isolates: a terminal that orders text does it line by line, by
the first letter of the line, so text stands on lines of its own, and the modern ones are asked to look at
that letter. Marks would go into what is copied and piped, and terminals that do not order text print them as
boxes.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from persianmind.common.log import printable

# "BiDi in Terminal Emulators": paragraph direction by the first strong letter (VTE, mintty, mlterm).
AUTODETECT_ON, AUTODETECT_OFF = "\x1b[?2501h", "\x1b[?2501l"
PROMPT = "> "  # neutral: the line takes the direction of what is typed


class Screen:
    """Writes to a stream; `is_terminal`: whether somebody reads along."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.is_terminal = self.out.isatty()

    def write(self, text: str) -> None:
        """Text at once: `printable` on a terminal, as it is in a pipe, where an answer is data."""
        self.out.write(printable(text) if self.is_terminal else text)
        self.out.flush()

    @contextlib.contextmanager
    def conversation(self) -> Iterator[None]:
        """Line editing and direction by the text, on a terminal, and as it was afterwards."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is refused, not fatal
        if not self.is_terminal:
            yield
            return
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - input() edits lines once it is there
        self._control(AUTODETECT_ON)
        try:
            yield
        finally:
            self._control(AUTODETECT_OFF)

    def read(self) -> str:
        """The next line that is typed.

        Raises:
            EOFError: no more lines (Ctrl-D).
        """
        return input(PROMPT if self.is_terminal else "")

    def _control(self, sequence: str) -> None:
        self.out.write(sequence)
        self.out.flush()

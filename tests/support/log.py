"""What this package logs, as a list: in tests, and in worker processes that have no pytest."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

ROOT_LOGGER = "persianmind"


class _ListHandler(logging.Handler):
    def __init__(self, lines: list[str], level: int) -> None:
        super().__init__(level)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@contextmanager
def logged(level: int = logging.WARNING) -> Iterator[list[str]]:
    """The messages of this package at `level` and above while the block runs, in their order."""
    logger = logging.getLogger(ROOT_LOGGER)
    lines: list[str] = []
    handler = _ListHandler(lines, level)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, before or level))
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def reset_logging() -> None:
    """Undoes `configure_logging`: the entry points call it, and tests of one process share the logger."""
    logger = logging.getLogger(ROOT_LOGGER)
    logger.handlers = []
    logger.propagate = True
    logger.setLevel(logging.NOTSET)

"""How much work this process has done: by this a watchdog tells what is slow from what is stuck.

Whoever may be busy for long counts what it has read, hashed, learned or fetched, in whatever unit it has.
Work is counted, never time: what is stuck counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, TypeVar

Item = TypeVar("Item")
_done = 0


def count_work(amount: int = 1) -> None:
    """So much more was done, in any unit."""
    global _done
    _done += amount  # of two threads one may be lost: the sum still changes


def work_done() -> int:
    """A number that changes with every piece of work."""
    return _done


def counted(items: Iterable[Item]) -> Iterator[Item]:
    """The items; each is work done once it is asked for."""
    for item in items:
        count_work()
        yield item


class CountedWriter:
    """A binary file; every byte written to it is work done."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle

    def write(self, block: bytes) -> int:
        """As the file does."""
        count_work(len(block))
        return self._handle.write(block)

    def __getattr__(self, name: str) -> object:
        return getattr(self._handle, name)

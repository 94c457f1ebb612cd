"""Reading one thing ahead, in a thread, while the one before it is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


class ReadAhead(Generic[Key, Item]):
    """Items by key, in the order asked for. All are read by one thread, at most one before it is asked for.

    What `read` raises is raised where the item would have come. `close` waits for the read in progress; no
    thread is left.
    """

    def __init__(self, read: Callable[[Key], Item]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._ahead: tuple[Key, Future[Item]] | None = None

    def items(self, keys: Iterable[Key], then: Key | None = None) -> Iterator[Item]:
        """The items of `keys`; the next key is drawn when an item is handed out.

        Args:
            then: what will be asked for first the next time, read while the last item is in use; None:
                not known, or not to be read yet.
        """
        remaining = iter(keys)
        key = next(remaining, None)
        while key is not None:
            following = next(remaining, None)
            yield self._take(key, then if following is None else following)
            key = following

    def close(self) -> None:
        """Ends the thread; what was read ahead is dropped, its error too."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self, key: Key, following: Key | None) -> Item:
        ahead, self._ahead = self._ahead, None
        if ahead is None or not (ahead[0] is key or ahead[0] == key):
            ahead = (key, self._pool.submit(self._read, key))
        item = ahead[1].result()
        if following is not None:
            self._ahead = (following, self._pool.submit(self._read, following))
        return item

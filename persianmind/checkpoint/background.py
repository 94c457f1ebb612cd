"""Saving beside training: the caller takes a snapshot, this writes and commits it while steps go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from persianmind.checkpoint.group import RankGroup
from persianmind.checkpoint.store import CheckpointStore


class BackgroundSaver:
    """One save at a time, in a thread. The protocol is `CheckpointStore.save`, unchanged.

    `group` must have collectives of its own (a separate process group): the thread exchanges outcomes while
    training reduces gradients. `write` must use only what the snapshot copied. An error is raised by the next
    `start` or `finish`; since a save ends alike on every rank, all of them raise it at the same place.
    """

    def __init__(self, store: CheckpointStore, group: RankGroup) -> None:
        self._store = store
        self._group = group
        self._thread: threading.Thread | None = None
        self._outcome: Path | BaseException | None = None

    def start(
        self,
        step: int,
        metadata: Mapping[str, Any],
        write: Callable[[Path], None],
        *,
        estimate_bytes: int | None = None,
    ) -> None:
        """Waits for the save before, then starts this one and returns.

        Raises:
            CheckpointWriteError: the save before failed; this one was not started.
        """
        self.finish()

        def work() -> None:
            try:
                self._outcome = self._store.save(
                    step, metadata, write, self._group, estimate_bytes=estimate_bytes
                )
            except BaseException as error:  # carried to the thread that trains
                self._outcome = error

        # A daemon: a process that must end at once (second SIGTERM) is not held up by a half-written
        # temporary, which the next save removes. An orderly end calls `finish`.
        self._thread = threading.Thread(target=work, name=f"checkpoint-{step}", daemon=True)
        self._thread.start()

    def finish(self) -> Path | None:
        """Waits for the running save and returns its folder; None when there was none.

        Raises:
            CheckpointWriteError: it failed; older checkpoints are untouched.
        """
        if self._thread is None:
            return None
        self._thread.join()
        self._thread, outcome, self._outcome = None, self._outcome, None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

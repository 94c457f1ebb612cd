"""Sequences of a folder that another process is still building: readers look at files alone, so they may be
on any node that sees the folder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import BuildFailedError, DamagedFileError, DataError
from persianmind.common.poll import wait_until
from persianmind.data.manifest import BUILDING, MANIFEST, Fingerprints, read_building, read_data_manifest
from persianmind.data.read.dataset import TokenDataset

FAILED = "failed.json"
POLL_S = 0.2
logger = logging.getLogger(__name__)


class IncrementalDataset(TokenDataset):
    """The sequences of a folder of token shards, from its first published shard on.

    fingerprints: of the build that is meant; what an older build of something else published is not used.
    while_waiting: called at every look while a reader waits; what it raises ends the wait.

    failure: why the build ended without finishing, once it has.

    Raises:
        DataError: anything `TokenDataset` raises but a missing manifest.
    """

    def __init__(
        self, folder: Path, fingerprints: Fingerprints, while_waiting: Callable[[], None] | None = None
    ) -> None:
        self._fingerprints = fingerprints
        self._while_waiting = while_waiting
        self._seen: tuple[int, int] | None = None
        self.failure: str | None = None
        super().__init__(folder)

    def known_sequences(self, number: int, block_sequences: int | None) -> int | None:
        """Waits until `number` can be located; see `TokenDataset.known_sequences`."""
        wait_until(
            lambda: self.is_built(number, block_sequences),
            interval_s=POLL_S,
            while_waiting=self._while_waiting,
        )
        return self.num_sequences

    def is_built(self, number: int, block_sequences: int | None) -> bool:
        """Whether `known_sequences` returns at once.

        Raises:
            BuildFailedError: it never will, the build has failed; what was built before can be used.
        """
        located = super().is_built(number, block_sequences)
        if not located and self.failure is not None:
            raise BuildFailedError(self.failure)
        return located

    def wait_for_shards(self, count: int, *, whole: bool) -> None:
        """See `TokenDataset.wait_for_shards`.

        Raises:
            BuildFailedError: they never will be there.
        """

        def are_built() -> bool:
            self.refresh()
            built = self.num_sequences is not None or (len(self.shards) >= count and not whole)
            if not built and self.failure is not None:
                raise BuildFailedError(self.failure)
            return built

        if not are_built():
            logger.info("data: waiting until %s is as far built as it was", self.folder)
            wait_until(are_built, interval_s=POLL_S, while_waiting=self._while_waiting)

    def refresh(self) -> None:
        """Takes up what was published since."""
        if self.num_sequences is not None:
            return
        if (self.folder / MANIFEST).is_file():
            manifest = read_data_manifest(self.folder)
            if manifest.fingerprints != self._fingerprints:
                raise DataError(
                    f"{self.folder} was built from something else than this run was prepared for; run the "
                    "same command again"
                )
            self._set_shards(manifest.shards)
            self._manifest = manifest
            return
        self.failure = read_failure(self.folder)  # before the list: nothing is published after a failure
        try:
            stat = (self.folder / BUILDING).stat()
        except FileNotFoundError:
            return
        if (seen := (stat.st_ino, stat.st_mtime_ns)) != self._seen:
            self._seen = seen
            published = read_building(self.folder)
            if published is not None and published.fingerprints == self._fingerprints:
                self._set_shards(published.shards)


def write_failure(folder: Path, text: str) -> None:
    """Says that the build of `folder` has failed: readers raise a BuildFailedError of this text."""
    write_checked(folder / FAILED, {"error": " ".join(text.split())})


def clear_failure(folder: Path) -> None:
    """Takes the mark of an earlier attempt away."""
    (folder / FAILED).unlink(missing_ok=True)


def read_failure(folder: Path) -> str | None:
    """Why the build of `folder` failed; None where it did not."""
    try:
        return str(read_checked(folder / FAILED)["error"])
    except FileNotFoundError:
        return None
    except (DamagedFileError, KeyError):
        return f"the build of {folder} failed, and its {FAILED} cannot be read"

"""Looking again at the shards that a run reads, while it reads them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.shard import ShardReader

MAX_TIME_RATIO = 0.01


class ShardRecheck:
    """Holds the shards that were read against their files, within MAX_TIME_RATIO of the time since its start.

    A file that was replaced, written to or removed is hashed at once, whatever that takes. Beside them the
    files come round in turn, the one that was hashed longest ago first, as far as the time goes: damage that
    leaves no trace in a file's times is found as well. No damaged byte is trained on before that: every
    sequence is checked when it is read (shard.py).
    """

    def __init__(self, datasets: Iterable[TokenDataset]) -> None:
        self._datasets = list(datasets)
        self._since_s = time.monotonic()
        self.spent_s = 0.0

    def look(self) -> None:
        """Looks now.

        Raises:
            DataError: a shard is missing, or not what its manifest says; the message names it.
        """
        readers = [reader for dataset in self._datasets for reader in dataset.readers]
        for reader in [one for one in readers if one.was_touched]:
            self._hash(reader)
        for reader in sorted(readers, key=lambda one: one.verified_s):
            if self.spent_s + reader.hashing_s > MAX_TIME_RATIO * (time.monotonic() - self._since_s):
                return
            self._hash(reader)

    def _hash(self, reader: ShardReader) -> None:
        reader.verify()
        self.spent_s += reader.hashing_s

"""Samples to batches: the mixture says which rows, the datasets give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from persianmind.data.dataset import Row, TokenDataset
from persianmind.data.order import Mixture

Batch = dict[str, npt.NDArray[np.int64]]


class StageData:
    """The data of one stage. Holds no position: sample numbers come from outside and are all there is."""

    def __init__(self, mixture: Mixture, datasets: Mapping[str, TokenDataset]) -> None:
        self.mixture = mixture
        self.datasets = datasets

    def row(self, sample: int) -> Row:
        """The packed row of one sample number; waits for it where its source is still being built."""
        source, row = self.locate(sample)
        return self.datasets[source].row(row)

    def locate(self, sample: int) -> tuple[str, int]:
        """(source, row) of one sample number; waits like `row`."""
        source, number = self.mixture.place(sample)
        rows = self.datasets[source].rows_at(number, self.mixture.block_rows)
        return source, self.mixture.row(source, number, rows)

    def missing(self, sample_ids: Iterable[int]) -> str | None:
        """A source whose rows for these samples are still to be built; None: nothing would wait.

        Raises:
            BuildFailedError: the build of one that is needed has failed.
        """
        for source, number in map(self.mixture.place, sample_ids):
            if not self.datasets[source].can_locate(number, self.mixture.block_rows):
                return source
        return None

    def batch(self, sample_ids: Sequence[int]) -> Batch:
        """`input_ids`, `position_ids` and `labels`, each int64 [B, L], in the order of `sample_ids`."""
        rows = [self.row(sample) for sample in sample_ids]
        return {
            "input_ids": np.stack([row.input_ids for row in rows]),
            "position_ids": np.stack([row.position_ids for row in rows]),
            "labels": np.stack([row.labels for row in rows]),
        }

    def target_count(self, sample_ids: Sequence[int]) -> int:
        """Loss targets in these samples: what the loss of a global batch is divided by. Reads no tokens."""
        places = [self.locate(sample) for sample in sample_ids]
        return sum(self.datasets[source].target_count(row) for source, row in places)

    def useful_tokens(self, sample_ids: Sequence[int]) -> int:
        """Tokens of documents in these samples (padding not counted). Reads no tokens."""
        places = [self.locate(sample) for sample in sample_ids]
        return sum(self.datasets[source].useful_tokens(row) for source, row in places)

    def characters(self, sample_ids: Sequence[int]) -> float | None:
        """Characters of text behind these samples, by each source's mean a token; None for older shards and
        for a source that is still being built."""
        total = 0.0
        for sample in sample_ids:
            source, row = self.locate(sample)
            if self.datasets[source].rows is None:
                return None
            manifest = self.datasets[source].manifest
            if manifest.characters is None:
                return None
            total += self.datasets[source].useful_tokens(row) * manifest.characters / manifest.tokens
        return total

"""Samples to batches: the mixture says which sequences, the datasets give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.order import MASK64, Mixture, mix64
from persianmind.data.read.sequence import TokenSequence, build_sequence

Batch = dict[str, npt.NDArray[np.int64]]


def padding_batch(seq_len: int) -> Batch:
    """One sequence, [1, seq_len], in which nothing is asked: its loss and its gradients are 0."""
    sequence = build_sequence(np.zeros(seq_len, dtype=np.int64), np.zeros(0, dtype=np.int32), None)
    zero = np.zeros(1, dtype=np.int64)
    return {**stack_sequences([sequence]), "sample_keys": zero, "source_ids": zero}


def stack_sequences(sequences: Sequence[TokenSequence]) -> Batch:
    """`input_ids`, `position_ids` and `labels`, each int64 [B, L]."""
    return {
        "input_ids": np.stack([sequence.input_ids for sequence in sequences]),
        "position_ids": np.stack([sequence.position_ids for sequence in sequences]),
        "labels": np.stack([sequence.labels for sequence in sequences]),
    }


class StageData:
    """The data of one stage. Holds no position: sample numbers come from outside and are all there is.

    datasets: by source, all of one sequence length.
    """

    def __init__(self, mixture: Mixture, datasets: Mapping[str, TokenDataset]) -> None:
        self.mixture = mixture
        self.datasets = datasets

    def sequence(self, sample: int) -> TokenSequence:
        """The packed sequence of one sample number; waits for it where its source is still being built."""
        source, sequence = self.locate(sample)
        return self.datasets[source].sequence(sequence)

    def locate(self, sample: int) -> tuple[str, int]:
        """(source, sequence) of one sample number; waits like `sequence`."""
        source, number = self.mixture.sample_to_source(sample)
        sequences = self.datasets[source].known_sequences(number, self.mixture.block_sequences)
        return source, self.mixture.source_to_sequence(source, number, sequences)

    def missing(self, sample_ids: Iterable[int]) -> str | None:
        """A source whose sequences for these samples are still to be built; None: nothing would wait.

        Raises:
            BuildFailedError: the build of one that is needed has failed.
        """
        for source, number in map(self.mixture.sample_to_source, sample_ids):
            if not self.datasets[source].is_built(number, self.mixture.block_sequences):
                return source
        return None

    def batch(self, sample_ids: Sequence[int]) -> Batch:
        """`input_ids`, `position_ids` and `labels`, each int64 [B, L], in the order of `sample_ids`,
        `sample_keys` [B], which no two samples of a run share, and `source_ids` [B], places in `sources`."""
        batch = stack_sequences([self.sequence(sample) for sample in sample_ids])
        keys = [mix64(mix64(self.mixture.seed & MASK64) ^ sample) for sample in sample_ids]
        source_ids = [self.sources.index(self.source_of(sample)) for sample in sample_ids]
        return {
            **batch,
            "sample_keys": np.array(keys, dtype=np.uint64).view(np.int64),
            "source_ids": np.array(source_ids, dtype=np.int64),
        }

    @property
    def sources(self) -> list[str]:
        """The sources of the stage, in a fixed order."""
        return list(self.mixture.counts)

    def source_of(self, sample: int) -> str:
        """The source of one sample number; waits for nothing."""
        return self.mixture.sample_to_source(sample)[0]

    def targets_by_source(self, sample_ids: Sequence[int]) -> dict[str, int]:
        """Loss targets in these samples by source, of those that have any. Reads no tokens."""
        found: dict[str, int] = {}
        for source, sequence in map(self.locate, sample_ids):
            found[source] = found.get(source, 0) + self.datasets[source].target_count(sequence)
        return found

    def target_count(self, sample_ids: Sequence[int]) -> int:
        """Loss targets in these samples: what the loss of a global batch is divided by. Reads no tokens."""
        places = [self.locate(sample) for sample in sample_ids]
        return sum(self.datasets[source].target_count(sequence) for source, sequence in places)

    def useful_tokens(self, sample_ids: Sequence[int]) -> int:
        """Tokens of documents in these samples (padding not counted). Reads no tokens."""
        places = [self.locate(sample) for sample in sample_ids]
        return sum(self.datasets[source].useful_tokens(sequence) for source, sequence in places)

    def bytes_per_token(self, source: str) -> float | None:
        """UTF-8 bytes of text per token of a source, its mean; None while it is being built, or where its
        shards are of a version that did not count them."""
        dataset = self.datasets[source]
        if dataset.num_sequences is None or not dataset.manifest.utf8_bytes:
            return None
        return dataset.manifest.utf8_bytes / dataset.manifest.tokens

    def characters(self, sample_ids: Sequence[int]) -> float | None:
        """Characters of text behind these samples, by each source's mean per token; None for a source that is
        still being built."""
        total = 0.0
        for sample in sample_ids:
            source, sequence = self.locate(sample)
            if self.datasets[source].num_sequences is None:
                return None
            manifest = self.datasets[source].manifest
            total += self.datasets[source].useful_tokens(sequence) * manifest.characters / manifest.tokens
        return total

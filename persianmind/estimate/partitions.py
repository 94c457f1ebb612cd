"""How DeepSpeed's ZeRO-2 lays the trained weights out over the ranks, and what its reduction holds meanwhile.

After deepspeed/runtime/zero/stage_1_and_2.py: each parameter group is one flat run of its weights, padded
to two weights for each rank, and cut into one partition for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

ALIGNMENT = 2  # weights per rank, for NCCL: nccl_start_alignment_factor


@dataclass(frozen=True, slots=True)
class FlatGroup:
    """One parameter group. sizes: weights of its parameters in their order. ranks: how many share it."""

    sizes: Sequence[int]
    ranks: int

    @property
    def padded(self) -> int:
        """Weights of the flat run, its padding among them."""
        unit = ALIGNMENT * self.ranks
        return -(-sum(self.sizes) // unit) * unit

    @property
    def partition(self) -> int:
        """Weights of one rank's part."""
        return self.padded // self.ranks

    def pieces(self, index: int) -> Iterator[tuple[int, int]]:
        """(rank, weights) of the parameter `index`, cut where partitions end."""
        start = sum(self.sizes[:index])
        stop = start + self.sizes[index]
        while start < stop:
            rank = start // self.partition
            end = min(stop, (rank + 1) * self.partition)
            yield rank, end - start
            start = end

    def owned(self, rank: int) -> Sequence[tuple[int, int]]:
        """(weights of the parameter, weights of its piece) for each parameter that the partition of `rank`
        has a piece of."""
        found = []
        for index, size in enumerate(self.sizes):
            found += [(size, weights) for owner, weights in self.pieces(index) if owner == rank]
        return found


@dataclass(frozen=True, slots=True)
class ReductionSettings:
    """Of DeepSpeed's JSON. bucket: weights of `reduce_bucket_size`. buffers: how many there are at once."""

    bucket: int
    buffers: int = 1
    contiguous: bool = True


@dataclass(frozen=True, slots=True)
class ReductionPeak:
    """Weights held at the reduction's highest moment, by kind."""

    gradients: int
    buckets: int
    copies: int
    partition: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.gradients + self.buckets + self.copies + self.partition


def reduction_peak(groups: Sequence[FlatGroup], rank: int, settings: ReductionSettings) -> ReductionPeak:
    """What one rank holds while gradients that are all there are reduced, parameter after parameter."""
    run = _Reduction(groups, rank, settings)
    for number, group in enumerate(groups):
        for index in range(len(group.sizes)):
            run.take(number, index)
    run.flush()
    assert run.peak is not None
    return run.peak


@dataclass(slots=True)
class _Reduction:
    """The bucket's state. gradients: weights still in tensors of their own; partition: in its own copy."""

    groups: Sequence[FlatGroup]
    rank: int
    settings: ReductionSettings
    filled: int = 0
    pending: list[tuple[int, int]] = field(default_factory=list)
    gradients: int = 0
    partition: int = 0
    peak: ReductionPeak | None = None

    def __post_init__(self) -> None:
        self.gradients = sum(sum(group.sizes) for group in self.groups)
        self._note()

    def take(self, group: int, index: int) -> None:
        """The next gradient goes into the bucket, or by itself where it is larger than the bucket."""
        size = self.groups[group].sizes[index]
        if self.filled + size > self.settings.bucket:
            self.flush()
        if self.settings.contiguous and size <= self.settings.bucket:
            self.gradients -= size
        self.filled += size
        self.pending.append((group, index))

    def flush(self) -> None:
        """Reduces what is pending; what this rank owns is copied out, the rest is dropped."""
        if not self.pending:
            return
        self._note(copies=self._copies())
        for group, index in self.pending:
            size = self.groups[group].sizes[index]
            owned = any(rank == self.rank for rank, _ in self.groups[group].pieces(index))
            if owned and not self.settings.contiguous:
                continue  # it stays as it is
            if owned and not self.partition:
                self.partition = sum(size for one in self.groups for size, _ in one.owned(self.rank))
                self._note()
            if not self.settings.contiguous or size > self.settings.bucket:
                self.gradients -= size
        self.pending, self.filled = [], 0

    def _copies(self) -> int:
        """Pieces for one rank that do not lie side by side are joined before they are sent."""
        if not self.settings.contiguous:
            return self.filled if len(self.pending) > 1 else 0
        runs: list[tuple[int, int]] = []
        for group, index in self.pending:
            for rank, weights in self.groups[group].pieces(index):
                if runs and runs[-1][0] == rank:
                    runs[-1] = (rank, runs[-1][1] + weights)
                else:
                    runs.append((rank, weights))
        joined = [
            sum(weights for other, weights in runs if other == rank)
            for rank in {rank for rank, _ in runs}
            if sum(other == rank for other, _ in runs) > 1
        ]
        return max(joined, default=0)

    def _note(self, copies: int = 0) -> None:
        buckets = self.settings.bucket * self.settings.buffers if self.settings.contiguous else 0
        here = ReductionPeak(self.gradients, buckets, copies, self.partition)
        if self.peak is None or here.total > self.peak.total:
            self.peak = here

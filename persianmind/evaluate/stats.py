"""How sure a score is: intervals and tests, each named for what it assumes.

Everything is drawn by a seed of its own, so that the same items give the same interval on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.959963984540054  # of the normal distribution
RESAMPLES = 1000
PERMUTATIONS = 10_000
CELLS = 4_000_000  # of one block of random numbers
SEED = 20_240_111

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConfidenceInterval:
    """A 95% interval; None where the data allow none."""

    low: float | None = None
    high: float | None = None


NO_INTERVAL = ConfidenceInterval()


def wilson(successes: int, n: int) -> ConfidenceInterval:
    """Wilson's score interval of a ratio (Wilson 1927, doi 10.1080/01621459.1927.10502953), two-sided 95%."""
    if n == 0:
        return NO_INTERVAL
    ratio, z2 = successes / n, Z_95**2
    centre = (ratio + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(ratio * (1 - ratio) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At its ends the sum is 0 or 1 but for rounding: 3e-18 in a table reads as a finding.
    return ConfidenceInterval(
        max(0.0, centre - half) if successes else 0.0, min(1.0, centre + half) if successes < n else 1.0
    )


def bootstrap_mean(values: ArrayLike) -> ConfidenceInterval:
    """Percentile bootstrap of a mean over its items."""
    return bootstrap_ratio(values, np.ones(len(np.asarray(values))))


def bootstrap_ratio(parts: ArrayLike, wholes: ArrayLike) -> ConfidenceInterval:
    """Percentile bootstrap of sum(parts) / sum(wholes) over the items that both are of.

    Args:
        parts, wholes: [n] each, such as nats and bytes of documents.

    Returns:
        No interval for fewer than two items.
    """
    ratios = resampled_ratios(parts, wholes)
    return NO_INTERVAL if ratios is None else _percentiles(ratios)


def bootstrap_difference(first: ArrayLike, second: ArrayLike, wholes: ArrayLike) -> ConfidenceInterval:
    """The same of sum(first - second) / sum(wholes): both were measured on the same items."""
    return bootstrap_ratio(np.subtract(first, second), wholes)


def resampled_ratios(parts: ArrayLike, wholes: ArrayLike) -> Floats | None:
    """[RESAMPLES] ratios of resampled items; None for fewer than two of them."""
    part_N, whole_N = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    if len(part_N) < 2:
        return None
    random, found = np.random.default_rng(SEED), []
    block = max(1, CELLS // len(part_N))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        # How often each item is drawn: the same as drawing items, without the items.
        times_RN = random.multinomial(len(part_N), np.full(len(part_N), 1 / len(part_N)), size=size)
        found.append((times_RN @ part_N) / (times_RN @ whole_N))
    return np.concatenate(found)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p of McNemar's test: of items that one model has right and the other wrong, whether as
    many fall to either side (McNemar 1947, doi 10.1007/BF02295996)."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def paired_permutation(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p of the mean difference of pairs, by flipping the sign of each (Fisher's randomisation);
    one is added to both counts, so that p is never 0."""
    differences_N = np.subtract(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    differences_N = differences_N[differences_N != 0]
    if not len(differences_N):
        return 1.0
    random, observed, reached = np.random.default_rng(SEED), abs(differences_N.sum()), 0
    block = max(1, CELLS // len(differences_N))
    for start in range(0, PERMUTATIONS, block):
        size = min(block, PERMUTATIONS - start)
        signs_PN = random.integers(0, 2, size=(size, len(differences_N)), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs_PN @ differences_N) >= observed - 1e-12).sum())
    return (reached + 1) / (PERMUTATIONS + 1)


def pearson(first: ArrayLike, second: ArrayLike) -> float | None:
    """Pearson's correlation; None where a side does not vary."""
    first_N, second_N = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(first_N) < 2 or first_N.std() == 0 or second_N.std() == 0:
        return None
    return float(np.corrcoef(first_N, second_N)[0, 1])


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's: Pearson's of the ranks, ties sharing their mean rank."""
    return pearson(_ranks(first), _ranks(second))


def fisher_interval(correlation: float | None, n: int) -> ConfidenceInterval:
    """Of a correlation, by Fisher's z."""
    if correlation is None or n < 4 or abs(correlation) >= 1:
        return NO_INTERVAL
    z, half = math.atanh(correlation), Z_95 / math.sqrt(n - 3)
    return ConfidenceInterval(math.tanh(z - half), math.tanh(z + half))


def _ranks(values: ArrayLike) -> Floats:
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_ranks: Floats = ((last - counts + 1 + last) / 2)[inverse]
    return mean_ranks


def _percentiles(values: Floats) -> ConfidenceInterval:
    low, high = np.percentile(values, [2.5, 97.5])
    return ConfidenceInterval(float(low), float(high))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

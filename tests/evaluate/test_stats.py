"""Intervals and tests: by hand, against scipy-free references, and by how often they err on planted data."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from persianmind.evaluate.measured import ItemScores, Measured, compare
from persianmind.evaluate.stats import (
    bootstrap_mean,
    bootstrap_ratio,
    fisher_interval,
    mcnemar,
    paired_permutation,
    pearson,
    spearman,
    wilson,
)

REPETITIONS = 200


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_newcombe_s_table(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_ends_are_exact() -> None:
    assert all(wilson(0, n).low == 0.0 and wilson(n, n).high == 1.0 for n in range(1, 300))


def test_mcnemar_is_the_binomial_by_hand() -> None:
    first, second = [True] * 9 + [False] * 2 + [True] * 30, [False] * 9 + [True] * 2 + [True] * 30
    by_hand = 2 * sum(math.comb(11, k) for k in range(3)) / 2**11
    assert mcnemar(first, second) == pytest.approx(by_hand)
    assert mcnemar(first, first) == 1.0


def test_permutation_is_the_whole_enumeration() -> None:
    a, b = np.array([0.9, 0.1, 0.8, 0.5, 0.7, 0.6]), np.array([0.1, 0.3, 0.2, 0.1, 0.4, 0.5])
    differences = a - b
    signs = np.array(list(product([1, -1], repeat=len(a))))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
    assert paired_permutation(a, b) == pytest.approx(exact, abs=0.02)
    assert paired_permutation(a, a) == 1.0


def test_a_ratio_of_one_item_has_no_interval_and_equal_items_have_none_of_width() -> None:
    assert bootstrap_ratio([3.0], [2.0]).low is None
    found = bootstrap_ratio([3.0] * 40, [2.0] * 40)
    assert found.low == found.high == pytest.approx(1.5)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(1), 0
    for _ in range(REPETITIONS):
        lengths = random.integers(50, 500, 60)
        bits = lengths * random.normal(1.0, 0.2, 60)
        found = bootstrap_ratio(bits, lengths)
        assert found.low is not None and found.high is not None
        covered += found.low <= 1.0 <= found.high
    assert 0.88 <= covered / REPETITIONS <= 0.99


def _planted(random: np.random.Generator, gain: float, n: int = 2000) -> tuple[list[float], list[float]]:
    """Two models on the same items, 8% of which change sides; `gain` more become right than wrong."""
    first = (random.random(n) < 0.5).astype(float)
    second = first.copy()
    wrong, right = np.flatnonzero(first == 0), np.flatnonzero(first == 1)
    churn = 0.08
    second[random.choice(wrong, round(n * (churn + gain) / 2), replace=False)] = 1.0
    second[random.choice(right, round(n * (churn - gain) / 2), replace=False)] = 0.0
    return first.tolist(), second.tolist()


@pytest.mark.parametrize("kind", ["right", "mean"])
def test_a_planted_gain_of_two_points_is_found_and_a_planted_zero_is_not(kind: str) -> None:
    """Over 200 repetitions at p < 0.05: how often a gain of 2 points of 2,000 items is missed, and how often
    a difference is found where items change sides by chance alone."""
    random, found, mistaken = np.random.default_rng(7), 0, 0
    for _ in range(REPETITIONS):
        found += _p_value(kind, *_planted(random, gain=0.02)) < 0.05
        a, b = _planted(random, gain=0.0)
        changed = [i for i in range(len(a)) if a[i] != b[i]]
        for i in changed:  # each of them to either side by chance
            a[i] = float(random.random() < 0.5)
            b[i] = 1.0 - a[i]
        mistaken += _p_value(kind, a, b) < 0.05
    print(f"{kind}: missed {1 - found / REPETITIONS:.1%}, mistaken {mistaken / REPETITIONS:.1%}")
    assert found / REPETITIONS >= 0.8
    assert mistaken / REPETITIONS <= 0.09


def _p_value(kind: str, first: list[float], second: list[float]) -> float:
    one, other = (
        Measured("accuracy", float(np.mean(v)), len(v), scores=ItemScores(dict(enumerate(v)), kind))  # type: ignore[arg-type]
        for v in (first, second)
    )
    comparison = compare(one, other, "other")
    assert comparison is not None and comparison.p_value is not None
    assert comparison.difference == pytest.approx(np.mean(first) - np.mean(second))
    return comparison.p_value


def test_correlations_by_hand() -> None:
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1.0)
    assert spearman([1, 2, 2, 4], [4, 3, 2, 1]) == pytest.approx(-0.9486832980505138)  # ties share a rank
    assert pearson([1, 1, 1], [1, 2, 3]) is None
    interval = fisher_interval(0.5, 28)
    assert interval.low == pytest.approx(0.1560, abs=1e-4) and interval.high == pytest.approx(
        0.7359, abs=1e-4
    )


def test_the_same_items_give_the_same_interval() -> None:
    values = list(np.random.default_rng(3).random(50))
    assert bootstrap_mean(values) == bootstrap_mean(values)

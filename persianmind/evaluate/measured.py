"""Metrics on their way from items to results, and how two models are compared on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from persianmind.evaluate.stats import (
    NO_INTERVAL,
    ConfidenceInterval,
    bootstrap_difference,
    mcnemar,
    paired_permutation,
)
from persianmind.run.evaluation_records import Comparison, SuiteResult


@dataclass(frozen=True, slots=True)
class ItemScores:
    """The value of each item, by its number. kind: whether each is right or wrong, a number, or a part of
    `wholes` (nats of bytes)."""

    values: Mapping[int, float]
    kind: Literal["right", "mean", "ratio"]
    wholes: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric. settings: what tells it from the same metric of other items (a category). scores: of its
    items, where two models can be paired on them."""

    metric: str
    value: float | None
    n: int
    interval: ConfidenceInterval = NO_INTERVAL
    chance: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: ItemScores | None = None


def as_result(measured: Measured, settings: Mapping[str, Any], shared: Mapping[str, Any]) -> SuiteResult:
    """As results are written.

    Args:
        settings: of its whole task; the metric's own are added.
        shared: the other fields of a result that all metrics of a task have in common.
    """
    return SuiteResult(
        metric=measured.metric,
        value=measured.value,
        ci_low=measured.interval.low,
        ci_high=measured.interval.high,
        n=measured.n,
        chance=measured.chance,
        settings={**settings, **measured.settings},
        **shared,
    )


def compare(first: Measured, second: Measured, model: str) -> Comparison | None:
    """The first model against the second on the items that both have; None where they cannot be paired.

    Right and wrong by McNemar's exact test, means and ratios by a paired permutation; the interval of the
    difference by bootstrap over items.
    """
    if first.scores is None or second.scores is None or second.value is None or first.value is None:
        return None
    common = sorted(first.scores.values.keys() & second.scores.values.keys())
    if not common:
        return None
    a = np.array([first.scores.values[item] for item in common])
    b = np.array([second.scores.values[item] for item in common])
    wholes = np.array([first.scores.wholes.get(item, 1.0) for item in common])
    interval = bootstrap_difference(a, b, wholes)
    if first.scores.kind == "right":
        test, p_value = "mcnemar", mcnemar(list(a > 0.5), list(b > 0.5))
    else:
        test, p_value = "paired permutation", paired_permutation(a, b)
    return Comparison(
        model=model,
        value=second.value,
        difference=float((a - b).sum() / wholes.sum()),
        ci_low=interval.low,
        ci_high=interval.high,
        test=test,
        p_value=p_value,
    )

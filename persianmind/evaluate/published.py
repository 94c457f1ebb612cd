"""Figures of the paper's model card, to stand beside what is measured; the only numbers of it we have."""

from __future__ import annotations

from collections.abc import Iterable

from persianmind.run.evaluation_records import PublishedScore, SuiteResult

SOURCE = "model card of universitytehran/PersianMind-v1.0 (arXiv 2401.06466)"
MODEL = "PersianMind-v1.0"
# (suite, task, metric): values of the card in bf16, int8 and nf4. COMET is measured by no one here.
_CARD = {
    ("belebele", "fa", "accuracy_letter"): (0.739, 0.737, 0.702),
    ("flores", "fa-en", "comet"): (83.61, 82.32, 82.07),
    ("flores", "en-fa", "comet"): (79.44, 78.61, 80.36),
}
_DTYPES = ("bf16", "int8", "nf4")


def published_beside(results: Iterable[SuiteResult]) -> list[PublishedScore]:
    """The published figures of the tasks among the results."""
    measured = {(result.suite, result.task) for result in results}
    return [
        PublishedScore(
            suite=suite, task=task, metric=metric, value=value, model=f"{MODEL} ({dtype})", source=SOURCE
        )
        for (suite, task, metric), values in _CARD.items()
        if (suite, task) in measured
        for dtype, value in zip(_DTYPES, values, strict=True)
    ]

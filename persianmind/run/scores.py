"""The scores of a run by stage, and the results that are quoted first."""

from __future__ import annotations

from collections.abc import Iterable

from persianmind.run.evaluation_records import EvaluationResult, SuiteResult
from persianmind.run.records import RunResults


def scores_by_stage(results: RunResults) -> dict[str, dict[str, EvaluationResult]]:
    """The held-out scores: by stage, then by language, both in the order they were measured."""
    scores: dict[str, dict[str, EvaluationResult]] = {}
    for score in results.evaluation:
        scores.setdefault(score.stage, {})[score.language] = score
    return scores


def headlines(results: Iterable[SuiteResult]) -> list[SuiteResult]:
    """Of each task (of each stage, under each change of spelling) the metric that stands first: of all its
    items, as published figures are. Parts of a task and scores without doubtful items come after it."""
    found: dict[tuple[str, ...], SuiteResult] = {}
    for result in results:
        changed = str(result.settings.get("perturbation"))
        found.setdefault((result.stage, str(result.step), result.suite, result.task, changed), result)
    return list(found.values())

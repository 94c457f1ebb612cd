"""The scores of a run by stage."""

from __future__ import annotations

from persianmind.run.records import EvaluationResult, RunResults


def scores_by_stage(results: RunResults) -> dict[str, dict[str, EvaluationResult]]:
    """The held-out scores: by stage, then by language, both in the order they were measured."""
    scores: dict[str, dict[str, EvaluationResult]] = {}
    for score in results.evaluation:
        scores.setdefault(score.stage, {})[score.language] = score
    return scores

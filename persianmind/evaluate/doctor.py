"""Doctor's check of what a recipe wants measured; the part of it that a start makes as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from persianmind.checks.base import Check, CheckContext, CheckResult
from persianmind.common.errors import RecipeError, nearest
from persianmind.recipe import Recipe


def check_evaluation(recipe: Recipe) -> None:
    """What `evaluate` names is there: suites, languages, the best metric.

    Raises:
        RecipeError: something is not; the line says what is.
    """
    evaluate, languages = recipe.evaluate, recipe.held_out_languages()
    if evaluate.suites:
        from persianmind.evaluate.suite import load_suite

        for name in evaluate.suites:
            load_suite(name)
    guard = evaluate.forgetting
    if guard is not None and guard.language not in languages:
        raise RecipeError(
            f"evaluate.forgetting.language {guard.language!r} is not held out; give one that is "
            f"({', '.join(languages) or 'none'}), or another --output with a source of it in heldout.sources"
        )
    metric = evaluate.best_metric
    if metric is None:
        if evaluate.patience is not None:
            raise RecipeError("evaluate.patience needs evaluate.best_metric, the metric that it waits for")
        return
    if "/" not in metric and metric not in languages:
        raise RecipeError(
            f"evaluate.best_metric {metric!r} is no held-out language{nearest(metric, languages)}; give "
            f"one of: {', '.join(languages) or 'none'}, or SUITE/TASK/METRIC of evaluate.suites"
        )
    if "/" in metric and metric.count("/") != 2:
        raise RecipeError(f"evaluate.best_metric {metric!r}: write SUITE/TASK/METRIC")
    if evaluate.patience is not None and evaluate.every_steps is None:
        raise RecipeError(
            "evaluate.patience needs evaluate.every_steps: it counts measurements within a stage"
        )


def _look(context: CheckContext) -> Iterator[CheckResult]:
    """Suites without data are warned of: the run goes on and says so."""
    if context.recipe is None:
        return
    evaluate = context.recipe.evaluate
    check_evaluation(context.recipe)
    if not evaluate.suites:
        return
    from persianmind.evaluate.rows import HUB
    from persianmind.evaluate.suite import load_suite, places_of

    data = Path(evaluate.data)
    for suite in map(load_suite, evaluate.suites):
        for task in suite.tasks:
            name, places = f"suite {suite.name}/{task.name}", places_of(suite, task.file, data)
            missing = [one for one in places if not one.startswith(HUB) and not Path(one).is_file()]
            if missing:
                where = f"; from {task.origin}" if task.origin else ""
                yield CheckResult.warn(name, f"no {missing[0]}, so it will not be run{where}")
            else:
                yield CheckResult.ok(name, ", ".join(places))


SUITES = Check("evaluation", _look)

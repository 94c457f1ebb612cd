"""The table a run ends with."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.records import RunResults
from persianmind.run.scores import headlines, scores_by_stage

WIDTH, INTERVAL_WIDTH = 16, 20


def summary_lines(results: RunResults) -> list[str]:
    """The table a run ends with: bits per byte of every stage with their intervals, the suites' first
    metrics, data that changed on the way, energy and CO2."""
    languages = list(dict.fromkeys(score.language for score in results.evaluation))
    header = "".join(
        f"{name + ' bits/byte':>{WIDTH}}{'95% interval':>{INTERVAL_WIDTH}}" for name in languages
    )
    lines = [f"{'stage':<14}{header}"]
    for stage, scores in scores_by_stage(results).items():
        lines.append(f"{stage:<14}" + "".join(_cells(scores.get(language)) for language in languages))
    lines += _suite_lines(results)
    lines += [
        f"sources.{one.source}: other {one.what} from step {one.step + 1} on" for one in results.data_changes
    ]
    if results.best is not None:
        best = results.best
        lines.append(f"best {best.metric}: {best.value:.4f} at step {best.step}, its checkpoint is kept")
    account = results.energy or {}
    if account.get("kwh") is not None:
        grams = account.get("co2_g")
        co2 = "CO2 unknown" if grams is None else f"{grams:.3g} g CO2eq"
        lines.append(f"energy: {account['kwh']:.4g} kWh, {co2}")
        lines += [f"energy, not complete: {problem}" for problem in account.get("problems", [])]
    return lines


def _suite_lines(results: RunResults) -> Iterator[str]:
    """The last stage's metrics beside the base's."""
    first = {
        (one.suite, one.task, str(one.settings.get("perturbation"))): one
        for one in headlines(results.results)
        if one.stage == "base"
    }
    stages = [one.stage for one in results.results if one.step is None]
    for one in headlines(results.results):
        if not stages or one.stage != stages[-1] or one.step is not None or one.value is None:
            continue
        base = first.get((one.suite, one.task, str(one.settings.get("perturbation"))))
        before = "" if base is None or base.value is None else f" (base {base.value:.4g})"
        interval = "" if one.ci_low is None else f" [{one.ci_low:.4g}, {one.ci_high:.4g}]"
        yield f"{one.suite}/{one.task}: {one.metric} {one.value:.4g}{interval}{before}, {one.n} items"


def _cells(score: EvaluationResult | None) -> str:
    if score is None:
        return f"{'-':>{WIDTH}}{'-':>{INTERVAL_WIDTH}}"
    interval = "-" if score.ci_low is None else f"{score.ci_low:.4f} to {score.ci_high:.4f}"
    return f"{score.bits_per_byte:>{WIDTH}.4f}{interval:>{INTERVAL_WIDTH}}"

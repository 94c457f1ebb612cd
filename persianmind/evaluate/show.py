"""What `persianmind evaluate` prints: one line per task, the metric that is quoted first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from persianmind.run.evaluation_records import NotRun, PublishedScore, SuiteResult
from persianmind.run.scores import headlines

HEADER = ("test", "metric", "value", "95% interval", "n", "chance")
AGAINST = ("against", "difference", "p")


def result_table(
    results: Iterable[SuiteResult], published: Iterable[PublishedScore]
) -> tuple[tuple[str, ...], list[list[str]]]:
    """(header, rows); published figures below their own task, named as such."""
    shown, others = headlines(results), list(published)
    is_compared = any(one.against is not None for one in shown)
    rows: list[list[str]] = []
    for result in shown:
        rows.append([*_row(result), *(_against(result) if is_compared else ())])
        for one in others:
            if (one.suite, one.task) == (result.suite, result.task):
                name = f"  published: {one.model}"
                rows.append(_filled([name, one.metric, _number(one.value)], len(rows[-1])))
    return HEADER + (AGAINST if is_compared else ()), rows


def not_run_lines(not_run: Iterable[NotRun]) -> list[str]:
    """A line per task that was not run."""
    return [f"not run: {one.suite}/{one.task}: {one.reason}" for one in not_run]


def _row(result: SuiteResult) -> list[str]:
    changed = result.settings.get("perturbation")
    low, high = result.ci_low, result.ci_high
    return [
        f"{result.suite}/{result.task}" + ("" if changed is None else f", {changed}"),
        result.metric,
        _number(result.value),
        "" if low is None or high is None else f"{_number(low)} to {_number(high)}",
        f"{result.n:,}",
        _number(result.chance),
    ]


def _against(result: SuiteResult) -> list[str]:
    found = result.against
    if found is None:
        return [""] * len(AGAINST)
    p_value = "" if found.p_value is None else f"{found.p_value:.3g} ({found.test})"
    return [_number(found.value), f"{found.difference:+.4g}", p_value]


def _filled(cells: Sequence[str], width: int) -> list[str]:
    return [*cells, *[""] * (width - len(cells))]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

"""Results of suites beside each other: a line per task, a column per stage, published figures below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from persianmind.report.read import RunFiles
from persianmind.report.values import number
from persianmind.report.view import GAP, Cell, Table, count, figure, plain
from persianmind.run.evaluation_records import SuiteResult
from persianmind.run.scores import headlines

MAX_STAGES = 8


@dataclass(frozen=True, slots=True)
class SuitesView:
    """new_tokens: None where nothing is known of them. contaminated: tests of which items stand in the text
    that was trained on."""

    table: Table
    not_run: list[str]
    new_tokens: Table | None
    contaminated: list[str]


def suites(run: RunFiles) -> SuitesView | None:
    """The metric of each task that is quoted first, at the end of each stage."""
    results = [one for one in headlines(run.results.results) if one.step is None]
    new_tokens = _new_tokens(run)
    not_run = [f"{one.suite}/{one.task}: {one.reason}" for one in run.results.not_run]
    if not results and new_tokens is None and not not_run:
        return None
    stages = list(dict.fromkeys(one.stage for one in results))[-MAX_STAGES:]
    return SuitesView(
        Table(["test", "metric", "chance", *stages], list(_rows(run, results, stages)), numeric=False),
        not_run,
        new_tokens,
        _contaminated(results),
    )


def _contaminated(results: list[SuiteResult]) -> list[str]:
    """What the comparison with the training text found; [] where no task was compared."""
    found: dict[str, tuple[float, int]] = {}
    for one in results:
        items = number(one.settings.get("contaminated_items"))
        if items is not None:
            found[f"{one.suite}/{one.task}"] = (items, one.n)
    if found and not any(items for items, _ in found.values()):
        return [f"Tests compared: {len(found)}. No item shares a long passage with the text trained on."]
    return [
        f"{task}: {items:,.0f} of {n:,} items share long passages with the text that was trained on"
        for task, (items, n) in found.items()
        if items
    ]


def _rows(run: RunFiles, results: list[SuiteResult], stages: list[str]) -> Iterator[list[Cell]]:
    by_task: dict[tuple[str, str, str], dict[str, SuiteResult]] = {}
    for one in results:
        changed = one.settings.get("perturbation")
        name = one.task if changed is None else f"{one.task}, {changed}"
        by_task.setdefault((one.suite, name, one.metric), {})[one.stage] = one
    for (suite, task, metric), found in by_task.items():
        first = next(iter(found.values()))
        yield [
            Cell(f"{suite}/{task}", origin=f"{first.n:,} items"),
            plain(metric),
            figure(number(first.chance), 3),
            *(_value(found.get(stage)) for stage in stages),
        ]
        for other in run.results.published:
            if (other.suite, other.task) == (suite, first.task):
                label = Cell(f"{suite}/{other.task}", origin=f"published: {other.model}")
                empty = [GAP] * (len(stages) - 1)
                yield [label, plain(other.metric), GAP, *empty, figure(number(other.value), 3)]


def _value(result: SuiteResult | None) -> Cell:
    value = None if result is None else number(result.value)
    if result is None or value is None:
        return GAP
    low, high = number(result.ci_low), number(result.ci_high)
    interval = "" if low is None or high is None else f"{low:.3g} to {high:.3g}"
    return Cell(figure(value, 3).text, number=True, origin=interval)


def _new_tokens(run: RunFiles) -> Table | None:
    header = [
        "after",
        "new tokens",
        "seen",
        "dead",
        "median seen",
        "median moved",
        "of the loss",
        "of the tokens",
    ]
    body = [
        [
            plain(one.stage), count(number(one.n)), count(number(one.seen)), count(number(one.dead)),
            count(number(one.median_seen)),
            figure(_percent(one.moved), 1, "%"), figure(_percent(one.loss_ratio), 1, "%"),
            figure(_percent(one.token_ratio), 1, "%"),
        ]
        for one in run.results.new_tokens
    ]  # fmt: skip
    return Table(header, body) if body else None


def _percent(value: float | None) -> float | None:
    found = number(value)
    return None if found is None else 100 * found

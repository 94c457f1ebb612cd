"""Results of suites beside each other: a line per task, a column per stage, and what others published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from persianmind.report.read import RunFiles
from persianmind.report.values import number
from persianmind.report.view import GAP, Cell, Table, count, figure, plain
from persianmind.run.evaluation_records import PublishedScore, SuiteResult
from persianmind.run.scores import headlines

MAX_STAGES = 8


@dataclass(frozen=True, slots=True)
class SuitesView:
    """new_tokens: None where nothing is known of them. contaminated: tests of which items stand in the text
    that was trained on. sources: of the published figures, "" where there are none."""

    table: Table
    sources: str
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
    rows = list(_rows(results, stages))
    header = ["test", "metric", "chance", *stages]
    beside = _published(run, results)
    if beside:
        header.append("published")
        rows = list(_with_published(rows, results, beside, len(stages)))
    return SuitesView(
        Table(header, rows, numeric=False),
        "; ".join(dict.fromkeys(one.source for found in beside.values() for one in found)),
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


Task = tuple[str, str, str]  # suite, task, metric


def _rows(results: list[SuiteResult], stages: list[str]) -> Iterator[list[Cell]]:
    for (suite, _, metric), found in _by_task(results).items():
        first = next(iter(found.values()))
        yield [
            Cell(f"{suite}/{_name(first)}", origin=f"{first.n:,} items"),
            plain(metric),
            figure(number(first.chance), 3),
            *(_value(found.get(stage)) for stage in stages),
        ]


def _by_task(results: list[SuiteResult]) -> dict[Task, dict[str, SuiteResult]]:
    """The results of each test by stage, in the order of the tests."""
    found: dict[Task, dict[str, SuiteResult]] = {}
    for one in results:
        found.setdefault((one.suite, _name(one), one.metric), {})[one.stage] = one
    return found


def _name(one: SuiteResult) -> str:
    changed = one.settings.get("perturbation")
    return one.task if changed is None else f"{one.task}, {changed}"


def _published(run: RunFiles, results: list[SuiteResult]) -> dict[Task, list[PublishedScore]]:
    """What others published of the tests that were run here, by test and metric."""
    here = {(one.suite, one.task) for one in results}
    found: dict[Task, list[PublishedScore]] = {}
    for one in run.results.published:
        if (one.suite, one.task) in here and number(one.value) is not None:
            found.setdefault((one.suite, one.task, one.metric), []).append(one)
    return found


def _with_published(
    rows: list[list[Cell]],
    results: list[SuiteResult],
    beside: dict[Task, list[PublishedScore]],
    stages: int,
) -> Iterator[list[Cell]]:
    """Each line with the published figure of its own metric; other metrics are lines of their own, so that no
    figure stands beside one of another kind."""
    left = dict(beside)
    for task, row in zip(_by_task(results), rows, strict=True):
        yield [*row, _published_cell(left.pop(task, []))]
    for (suite, name, metric), found in left.items():
        label = Cell(f"{suite}/{name}", origin="not measured here")
        yield [label, plain(metric), GAP, *[GAP] * stages, _published_cell(found)]


def _published_cell(found: list[PublishedScore]) -> Cell:
    """The first figure, all models below."""
    if not found:
        return GAP
    others = [f"{one.value:.4g}: {one.model}" for one in found[1:]]
    return Cell(f"{found[0].value:.4g}", origin="; ".join([found[0].model, *others]))


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

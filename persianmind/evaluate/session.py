"""One evaluation of one model: tasks are read, shared among the ranks, scored, measured, and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persianmind.common.checksum import hash_text
from persianmind.common.errors import RecipeError
from persianmind.evaluate.contamination import CONTAMINATED, item_overlaps, trained_files
from persianmind.evaluate.evaluated import EvaluatedModel
from persianmind.evaluate.families import FAMILIES, NotPossibleError, Numbered, Record, TaskContext
from persianmind.evaluate.item_files import ItemFile
from persianmind.evaluate.items import Item, item_key
from persianmind.evaluate.layouts import layouts
from persianmind.evaluate.measured import Measured, as_result
from persianmind.evaluate.perturb import change_named, perturbed
from persianmind.evaluate.rows import data_sha256
from persianmind.evaluate.suite import Suite, Task, options_of, places_of
from persianmind.run.evaluation_records import Comparison, NotRun, SuiteResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """This process among those that evaluate together. gather: a value of each to all, in order of rank."""

    rank: int = 0
    world_size: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the suites is wanted. data: folder of their files. out: where records are kept; None: nowhere.
    limit, few_shot: in place of each task's own. stage, step: of a run that evaluates itself."""

    data: Path
    out: Path | None = None
    limit: int | None = None
    few_shot: int | None = None
    stage: str = ""
    step: int | None = None


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """One task of one model: its metrics, and the results that they are written as."""

    suite: str
    task: Task
    perturbation: str | None
    measured: list[Measured]
    results: list[SuiteResult]


@dataclass(slots=True)
class Outcomes:
    """All tasks of one model; not_run: those without data, or that the model cannot take."""

    tasks: list[TaskOutcome] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)

    @property
    def results(self) -> list[SuiteResult]:
        """Of all tasks, in order."""
        return [result for outcome in self.tasks for result in outcome.results]


def run_suites(
    model: EvaluatedModel,
    suites: Sequence[Suite],
    wanted: Wanted,
    share: Share,
    joules: Callable[[], float | None] = lambda: None,
) -> Outcomes:
    """Every task of every suite; all ranks together, with the same arguments. The model is in
    `generation_mode`.

    Args:
        joules: that this machine has used so far; None where nothing is counted.

    Raises:
        DataError: a file of a test is there and is not what it should be.
        RecipeError: a suite asks for what is not known.
    """
    found = Outcomes()
    for suite in suites:
        for task in suite.tasks:
            for perturbation in [None, *task.perturbations]:
                one = _TaskRun(model, suite, task, perturbation, wanted, share)
                try:
                    found.tasks.append(one.run(joules))
                except (NotPossibleError, FileNotFoundError) as error:
                    reason = str(error) if isinstance(error, NotPossibleError) else _missing(task, error)
                    found.not_run.append(NotRun(suite=suite.name, task=task.name, reason=reason))
                    break
    return found


def compare_outcomes(first: Outcomes, second: Outcomes, model: str) -> None:
    """Puts beside each result of the first what the second model has on the same items."""
    others = {(one.suite, one.task.name, one.perturbation): one for one in second.tasks}
    for outcome in first.tasks:
        other = others.get((outcome.suite, outcome.task.name, outcome.perturbation))
        if other is None:
            continue
        family = FAMILIES[outcome.task.family]
        comparisons = family.compare(outcome.measured, other.measured, model)
        outcome.results[:] = [
            _with(result, comparison) for result, comparison in zip(outcome.results, comparisons, strict=True)
        ]


class _TaskRun:
    """One task, under one change of spelling or none."""

    def __init__(
        self,
        model: EvaluatedModel,
        suite: Suite,
        task: Task,
        perturbation: str | None,
        wanted: Wanted,
        share: Share,
    ) -> None:
        self.model, self.suite, self.task, self.perturbation = model, suite, task, perturbation
        self.wanted, self.share = wanted, share
        self.family = FAMILIES[task.family]
        self.options = options_of(task)

    def run(self, joules: Callable[[], float | None]) -> TaskOutcome:
        started_s, started_j = time.perf_counter(), joules()
        places = places_of(self.suite, self.task.file, self.wanted.data)
        read = layouts()[self.task.layout].read(places)
        if self.model.run is not None and data_sha256(places) in trained_files(self.model.run):
            raise NotPossibleError(f"{places[0]} was trained on as instructions; it is no test of this run")
        items = self._limited(read.items)
        dev = self._dev_items(items)
        shown = self._changed(items)
        count = self.task.few_shot if self.wanted.few_shot is None else self.wanted.few_shot
        if count > len(dev):
            raise RecipeError(
                f"suite {self.suite.name}, task {self.task.name}: {count} examples are asked for and "
                f"{len(dev)} are to be had beside the test; give dev, or fewer"
            )
        context = TaskContext(
            self.model, self.task.language, self.options, dev[:count], dev, self.share.gather
        )
        self.family.check(context)
        prompt_hash = hash_text(*self.family.prompt_parts(context))
        sha256 = data_sha256(places)
        file = ItemFile(self._item_path(), self._key(prompt_hash, sha256, len(items)), self.share.rank)
        records = self._score(context, shown, file)
        overlaps = self._overlaps(items)
        measured = self._measure(context, records, overlaps)
        settings = {
            "layout": self.task.layout, "language": self.task.language, "few_shot": count,
            "perturbation": self.perturbation, "counts": dict(read.counts), "limit": self._limit,
            "window": self.model.window, **self.options.model_dump(mode="json"),
        }  # fmt: skip
        if overlaps is not None:
            settings["contaminated_items"] = sum(one >= CONTAMINATED for one in overlaps)
        used = joules()
        shared = {
            "suite": self.suite.name, "task": self.task.name, "model": self.model.name,
            "model_fingerprint": self.model.fingerprint, "prompt_hash": prompt_hash, "data_sha256": sha256,
            "seconds": round(time.perf_counter() - started_s, 3), "stage": self.wanted.stage,
            "joules": None if used is None else used - (started_j or 0.0), "step": self.wanted.step,
        }  # fmt: skip
        results = [as_result(one, settings, shared) for one in measured]
        if self.share.rank == 0 and results:
            head = results[0]
            logger.info(f"{_label(self)}: {head.metric} {_value(head)}, {head.n} items, {head.seconds:.1f} s")
        return TaskOutcome(self.suite.name, self.task, self.perturbation, measured, results)

    @property
    def _limit(self) -> int | None:
        return self.task.limit if self.wanted.limit is None else self.wanted.limit

    def _limited(self, items: list[Item]) -> list[Item]:
        return items if self._limit is None else items[: self._limit]

    def _dev_items(self, items: Sequence[Item]) -> list[Item]:
        """Items for examples and choices; what is a test item as well is left out."""
        if self.task.dev is None:
            return []
        layout = layouts()[self.task.dev_layout or self.task.layout]
        try:
            found = layout.read(places_of(self.suite, self.task.dev, self.wanted.data)).items
        except FileNotFoundError:
            return []
        tested = {item_key(item) for item in items}
        return [item for item in found if item_key(item) not in tested]

    def _changed(self, items: Sequence[Item]) -> list[Item]:
        if self.perturbation is None:
            return list(items)
        # What a translation reads is in its own language.
        language = getattr(self.options, "source", self.task.language)
        change = change_named(self.perturbation, self.model.profile(language))
        return [perturbed(item, change, self.options) for item in items]

    def _score(self, context: TaskContext, items: Sequence[Item], file: ItemFile) -> list[Record]:
        """Records of all items in order; what is on disk already is not scored again."""
        known = {item: record for item, record in file.read().items() if item < len(items)}
        done = self.share.gather(known)
        known = {item: record for part in done for item, record in part.items()}
        todo = [number for number in range(len(items)) if number not in known]
        if todo and self.task.family == "similarity":
            known, todo = {}, list(range(len(items)))  # all vectors meet
        mine = todo[self.share.rank :: self.share.world_size]
        scored: dict[int, Record] = {}
        if todo:
            for record in self.family.score(context, Numbered({number: items[number] for number in mine})):
                file.append(record)
                scored[record["item"]] = record
        for part in self.share.gather(scored):
            known |= part
        records = [known[number] for number in range(len(items))]
        if self.share.rank == 0 and todo:
            file.finish(records)
        self.share.gather(None)  # nobody reads parts before they are joined
        return records

    def _overlaps(self, items: Sequence[Item]) -> list[float] | None:
        if self.model.run is None:
            return None
        found = None
        if self.share.rank == 0:
            found = item_overlaps(self.model.run, items, self.task.language)
        first: list[float] | None = self.share.gather(found)[0]
        return first

    def _measure(
        self, context: TaskContext, records: Sequence[Record], overlaps: Sequence[float] | None
    ) -> list[Measured]:
        """All metrics; and once more without the items that stand in the run's data, where there are some."""
        measured = self.family.measure(context, records)
        clean = [record for record in records if overlaps is None or overlaps[record["item"]] < CONTAMINATED]
        if 0 < len(clean) < len(records):
            for one in self.family.measure(context, clean):
                settings = {**one.settings, "without": "contaminated items"}
                measured.append(
                    Measured(one.metric, one.value, one.n, one.interval, one.chance, settings, one.scores)
                )
        return measured

    def _item_path(self) -> Path | None:
        if self.wanted.out is None:
            return None
        name = self.task.name if self.perturbation is None else f"{self.task.name}.{self.perturbation}"
        stage = [self.wanted.stage] if self.wanted.stage else []
        step = [] if self.wanted.step is None else [f"step-{self.wanted.step}"]
        return self.wanted.out.joinpath("items", *stage, *step, self.suite.name, f"{name}.jsonl")

    def _key(self, prompt_hash: str, sha256: str, count: int) -> str:
        return hash_text(
            self.model.fingerprint, prompt_hash, sha256, self.options.model_dump_json(),
            str(count), str(self.perturbation), str(self.model.window),
        )  # fmt: skip


def _label(run: _TaskRun) -> str:
    changed = "" if run.perturbation is None else f" ({run.perturbation})"
    return f"evaluate {run.suite.name}/{run.task.name}{changed}"


def _value(result: SuiteResult) -> str:
    if result.value is None:
        return "unknown"
    interval = "" if result.ci_low is None else f" [{result.ci_low:.4g}, {result.ci_high:.4g}]"
    return f"{result.value:.4g}{interval}"


def _missing(task: Task, error: FileNotFoundError) -> str:
    where = f"; from {task.origin}" if task.origin else ""
    return f"no {error.filename}{where}; licence {task.licence}"


def _with(result: SuiteResult, comparison: Comparison | None) -> SuiteResult:
    return result.model_copy(update={"against": comparison})

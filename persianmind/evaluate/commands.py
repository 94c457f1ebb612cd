"""`persianmind evaluate MODEL`: what a model scores on suites of tests, and how sure that is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.errors import UsageError
from persianmind.common.log import ROOT as LOG_ROOT
from persianmind.common.log import print_line
from persianmind.engine.ranks import Ranks, ranks_from_environment

if TYPE_CHECKING:
    from persianmind.energy.meter.client import EnergyMeter
    from persianmind.evaluate.evaluated import EvaluatedModel
    from persianmind.evaluate.session import Outcomes, Share, Wanted
    from persianmind.evaluate.suite import Suite

Device = Literal["auto", "cpu", "cuda"]
DATA = Path("eval-data")
DEFAULT_SUITES = ("belebele", "parsinlu", "farstail", "exams", "flores", "similarity", "health")


class Place(Protocol):
    """A path that a model can be opened from; what does is above this package."""

    def check(self) -> None:
        """Refuses what cannot be opened, before anything heavy is imported."""
        ...

    def open_evaluated(self, device: str) -> EvaluatedModel:
        """Loads it."""
        ...


def make_evaluate(place_of: Callable[[Path, str | None], Place]) -> Callable[..., None]:
    """The command. place_of: a path, and a checkpoint of a run or None, to what can be opened."""

    def evaluate(
        model: Annotated[
            Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder, an export, or a run folder.")
        ],
        against: Annotated[
            Path | None, typer.Option(metavar="MODEL2", help="A second one, on the same items.")
        ] = None,
        suite: Annotated[
            list[str] | None,
            typer.Option(metavar="NAME|FILE", help="A shipped suite, a .yaml or a .jsonl file; repeatable."),
        ] = None,
        data: Annotated[Path, typer.Option(metavar="DIR", help="Where the files of tests lie.")] = DATA,
        limit: Annotated[int | None, typer.Option(min=1, help="Items per task, from the first on.")] = None,
        few_shot: Annotated[
            int | None, typer.Option(min=0, help="Examples before each item, never of the test itself.")
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(metavar="DIR", help="Keeps results and items; the same command goes on there."),
        ] = None,
        harness: Annotated[
            list[str] | None,
            typer.Option(metavar="TASK", help="A task of lm-evaluation-harness 0.4; repeatable."),
        ] = None,
        harness_tasks: Annotated[
            Path | None, typer.Option(metavar="DIR", help="A folder with task files of yours for it.")
        ] = None,
        checkpoint: Annotated[
            str | None, typer.Option(metavar="STEP", help="Of a run; its newest good one otherwise.")
        ] = None,
        device: Annotated[Device, typer.Option(help="auto: the GPU where there is one.")] = "auto",
        as_json: JsonFlag = False,
    ) -> None:
        """Measure a model: text, multiple choice, translation, similarity, health; each with its interval.

        Under torchrun, or deepspeed --module persianmind, all ranks share the items.
        """
        from persianmind.evaluate.session import Wanted
        from persianmind.evaluate.suite import load_suite

        if few_shot and not suite:
            raise UsageError("--few-shot needs --suite: some of the default suites have nothing to show")
        suites = [load_suite(one) for one in suite or (() if harness else DEFAULT_SUITES)]
        places = [place_of(model, checkpoint), *([] if against is None else [place_of(against, None)])]
        for place in places:
            place.check()
        if as_json:
            logging.getLogger(LOG_ROOT).setLevel(logging.WARNING)  # nothing but the object on standard output
        ranks = ranks_from_environment()
        wanted = Wanted(data=data, out=out, limit=limit, few_shot=few_shot)
        outcomes = _evaluate(places, suites, wanted, ranks, device, harness or (), harness_tasks)
        if ranks.rank == 0:
            _show(outcomes, out, as_json)

    return evaluate


def _evaluate(
    places: list[Place],
    suites: list[Suite],
    wanted: Wanted,
    ranks: Ranks,
    device: str,
    harness: list[str] | tuple[str, ...],
    harness_tasks: Path | None,
) -> Outcomes:
    """One model after the other, so that both need not fit."""
    import gc
    import os

    import torch
    from transformers.utils import logging as transformers_logging

    from persianmind.evaluate.generate import generation_mode
    from persianmind.evaluate.ranks import shared_among
    from persianmind.evaluate.session import compare_outcomes, run_suites

    transformers_logging.disable_progress_bar()
    if ranks.world_size > 1:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks.local_size))
        if torch.cuda.is_available():
            torch.cuda.set_device(ranks.local_rank)
    found: list[tuple[str, Outcomes]] = []
    with shared_among(ranks) as share, _meter(wanted.out, ranks) as meter:
        joules = (lambda: None) if meter is None else meter.joules
        for place in places:
            model = place.open_evaluated(device)
            with generation_mode(model.causal_lm):
                outcomes = run_suites(model, suites, _part(wanted, len(found)), share, joules)
                if harness:
                    _add_harness(outcomes, model, harness, harness_tasks, wanted, share)
            found.append((model.name, outcomes))
            del model
            gc.collect()
    first = found[0][1]
    if len(found) > 1:
        compare_outcomes(first, found[1][1], found[1][0])
    return first


def _add_harness(
    outcomes: Outcomes,
    model: EvaluatedModel,
    tasks: list[str] | tuple[str, ...],
    folder: Path | None,
    wanted: Wanted,
    share: Share,
) -> None:
    from persianmind.evaluate.harness import run_harness
    from persianmind.evaluate.session import TaskOutcome
    from persianmind.evaluate.suite import Task

    results = run_harness(model, tasks, folder, limit=wanted.limit, few_shot=wanted.few_shot, share=share)
    for result in results:
        task = Task(name=result.task, layout="documents", file=result.task)
        outcomes.tasks.append(TaskOutcome("lm-eval", task, None, [], [result]))


def _part(wanted: Wanted, number: int) -> Wanted:
    """The second model keeps its records beside those of the first."""
    from dataclasses import replace

    return wanted if number == 0 or wanted.out is None else replace(wanted, out=wanted.out / "against")


@contextmanager
def _meter(out: Path | None, ranks: Ranks) -> Iterator[EnergyMeter | None]:
    """A meter of this node, where results are kept, as its ledger lies beside them; on the first rank of a
    node."""
    if out is None or ranks.local_rank != 0:
        yield None
        return
    from persianmind.energy.meter.client import EnergyMeter
    from persianmind.recipe import Energy
    from persianmind.run.folder import RunFolder
    from persianmind.run.records import Phase

    with EnergyMeter(RunFolder(out), node=ranks.node, options=Energy(interval_s=1.0)) as meter:
        meter.mark(Phase.EVALUATE, 0)
        yield meter


def _show(outcomes: Outcomes, out: Path | None, as_json: bool) -> None:
    from persianmind.common.checksum import write_checked
    from persianmind.evaluate.published import published_beside
    from persianmind.evaluate.show import not_run_lines, result_table

    published = published_beside(outcomes.results)
    content = {
        "results": [one.model_dump(mode="json") for one in outcomes.results],
        "not_run": [one.model_dump(mode="json") for one in outcomes.not_run],
        "published": [one.model_dump(mode="json") for one in published],
    }
    if out is not None:
        write_checked(out / "results.json", content)
    if as_json:
        emit_json(content)
        return
    if outcomes.results:
        header, rows = result_table(outcomes.results, published)
        emit_table("what was measured", header, rows)
    for line in not_run_lines(outcomes.not_run):
        print_line(line, sys.stderr)
    if out is not None:
        print_line(f"every metric: {out / 'results.json'}; every item: {out / 'items'}")

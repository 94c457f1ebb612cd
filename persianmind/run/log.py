"""The run's own records: metrics.jsonl (a line per optimizer step), results.json, TensorBoard files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from persianmind.common.atomic import append_line, fsync_file, write_bytes
from persianmind.common.checksum import dump_checked_line, read_checked, write_checked
from persianmind.common.errors import DamagedFileError
from persianmind.run.evaluation_records import (
    EvaluationResult,
    NewTokens,
    NotRun,
    PublishedScore,
    SuiteResult,
)
from persianmind.run.event_file import EventFile
from persianmind.run.folder import RunFolder
from persianmind.run.records import (
    R,
    RunResults,
    SampleText,
    StepRecord,
    parse_record,
    read_lines,
)
from persianmind.run.trackers import Tracker

if TYPE_CHECKING:  # the energy meter, a light process, reads records by this module
    from persianmind.recipe import Recipe

logger = logging.getLogger(__name__)
TENSORBOARD_SCALARS = ("loss", "learning_rate", "grad_norm", "tokens_per_s")


RESTORE_RESULTS = "restore it from a copy, or move it away to go on without the scores in it"


class RunLog:
    """Writes metrics on rank 0; elsewhere every call does nothing because `active` is False.

    After a crash the lines beyond the checkpoint describe steps that will be done again: `rewind` moves them
    to metrics.discarded.jsonl, so metrics.jsonl always holds each step once.
    """

    def __init__(self, folder: RunFolder, *, active: bool, trackers: Sequence[Tracker] = ()) -> None:
        self.folder = folder
        self.active = active
        self.trackers = trackers
        self._events = EventFile(folder.tensorboard)

    def rewind(self, step: int) -> None:
        """Keeps the lines up to `step`; later or torn ones move to the discarded file."""
        path = self.folder.metrics
        if not self.active or not path.is_file():
            return
        kept: list[bytes] = []
        discarded: list[bytes] = []
        for line in path.read_bytes().splitlines():
            record = parse_record(line, StepRecord)
            (kept if record is not None and record.step <= step else discarded).append(line)
        if discarded:
            text = b"\n".join(discarded).decode("utf-8", "replace")  # a damaged line may be no text
            append_line(self.folder.discarded_metrics, text)
            write_bytes(path, b"".join(line + b"\n" for line in kept))
        read_steps(self.folder, last_step=step)

    def append(self, record: StepRecord) -> None:
        """Appends one line; then the same to TensorBoard files and trackers.

        Raises:
            DiskError: the line cannot be written; the file is as it was.
        """
        if not self.active:
            return
        values = record.model_dump(mode="json")
        append_line(self.folder.metrics, dump_checked_line(values))
        # None: a loss that was not finite.
        scalars = {name: values[name] for name in TENSORBOARD_SCALARS if values[name] is not None}
        self._events.log(record.step, scalars)
        for tracker in self.trackers:
            tracker.log(values)

    def append_scores(self, step: int, scores: Sequence[EvaluationResult]) -> None:
        """Bits per byte of held-out text after `step`, to TensorBoard files and trackers; results.json has
        them in full."""
        values = {f"held_out/{score.language}": score.bits_per_byte for score in scores}
        if not self.active or not values:
            return
        self._events.log(step, values)
        for tracker in self.trackers:
            tracker.log({"step": step, **values})

    def flush(self) -> None:
        """Makes what was logged durable; called before every checkpoint commits."""
        if self.active and self.folder.metrics.is_file():
            fsync_file(self.folder.metrics)

    def close(self) -> None:
        """Ends the trackers."""
        for tracker in self.trackers:
            tracker.finish()


@dataclass(frozen=True, slots=True)
class Metrics:
    """The steps of metrics.jsonl, each once: of one that was done again the last line.

    problem: how many lines are damaged or cut short, stand twice, or are not there; "" where none is.
    """

    steps: list[StepRecord]
    problem: str


def read_metrics(folder: RunFolder, last_step: int = 0) -> Metrics:
    """Reads metrics.jsonl; no file is one without lines.

    last_step: the steps up to it must be there; beside that none may be missing before the last one there.
    """
    by_step: dict[int, StepRecord] = {}
    damaged = twice = 0
    for record in read_lines(folder.metrics, StepRecord):
        if record is None:
            damaged += 1
            continue
        twice += by_step.pop(record.step, None) is not None
        by_step[record.step] = record
    missing = max([*by_step, last_step], default=0) - len(by_step)
    found = {"damaged": damaged, "twice in it": twice, "missing": missing}
    told = ", ".join(f"{count} {what}" for what, count in found.items() if count > 0)
    return Metrics(list(by_step.values()), f"{folder.metrics.name}: of its lines {told}" if told else "")


def read_steps(folder: RunFolder, last_step: int = 0) -> list[StepRecord]:
    """The steps of `read_metrics`; what is wrong with the file is said in the log."""
    found = read_metrics(folder, last_step)
    if found.problem:
        logger.warning("%s: %s", folder, found.problem)
    return found.steps


def read_results(folder: RunFolder) -> RunResults:
    """results.json, or empty results where there is none yet.

    Raises:
        DamagedFileError: it is not as it was written.
    """
    try:
        return RunResults.model_validate(read_checked(folder.results, RESTORE_RESULTS))
    except FileNotFoundError:
        return RunResults()
    except ValidationError as error:
        raise DamagedFileError(
            f"{folder.results} is not a results file of this version ({error.errors()[0]['msg']}); "
            "move it away"
        ) from None


def update_results(folder: RunFolder, **changes: Any) -> RunResults:
    """Replaces fields of results.json, whole or not at all."""
    results = read_results(folder).model_copy(update=changes)
    write_checked(folder.results, results.model_dump(mode="json"))
    return results


def add_evaluation(folder: RunFolder, scores: Sequence[EvaluationResult]) -> None:
    """Adds or replaces the scores of one stage, in the order they come."""
    stages = {score.stage for score in scores}
    kept = [score for score in read_results(folder).evaluation if score.stage not in stages]
    update_results(folder, evaluation=[*kept, *scores])


def add_evaluation_within(folder: RunFolder, scores: Sequence[EvaluationResult]) -> None:
    """Adds or replaces the scores of one step within a stage."""
    steps = {score.step for score in scores}
    kept = [score for score in read_results(folder).within_stages if score.step not in steps]
    update_results(folder, within_stages=[*kept, *scores])


def add_suite_results(
    folder: RunFolder,
    results: Sequence[SuiteResult],
    not_run: Sequence[NotRun],
    published: Sequence[PublishedScore],
) -> None:
    """Adds or replaces the results of one stage or step; what was not run, and what is published, stand
    once."""
    before = read_results(folder)
    places = {(result.stage, result.step) for result in results}
    kept = [result for result in before.results if (result.stage, result.step) not in places]
    update_results(
        folder,
        results=[*kept, *results],
        not_run=_once([*before.not_run, *not_run]),
        published=_once([*before.published, *published]),
    )


def add_new_tokens(folder: RunFolder, found: NewTokens) -> None:
    """Adds or replaces what is known of the new embeddings after one stage."""
    kept = [one for one in read_results(folder).new_tokens if one.stage != found.stage]
    update_results(folder, new_tokens=[*kept, found])


def _once(records: Sequence[R]) -> list[R]:
    return list({record.model_dump_json(): record for record in records}.values())


def add_samples(folder: RunFolder, samples: Sequence[SampleText]) -> None:
    """Adds or replaces the samples of one stage, in the order they come."""
    stages = {sample.stage for sample in samples}
    kept = [sample for sample in read_results(folder).samples if sample.stage not in stages]
    update_results(folder, samples=[*kept, *samples])


def decided_recipe(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe with `gradient_checkpointing: auto` as the run in this folder decided it; unchanged where it
    did not.

    Raises:
        DamagedFileError: results.json is not as it was written.
    """
    if recipe.train.gradient_checkpointing != "auto":
        return recipe
    recorded = read_results(folder).recompute
    return recipe if recorded is None else recipe.with_recompute(recorded.setting)

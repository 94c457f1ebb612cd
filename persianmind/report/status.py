"""Where a run stands, from its files alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

from persianmind.common.checksum import read_checked
from persianmind.common.errors import DamagedFileError, PersianMindError
from persianmind.common.lock import read_owner
from persianmind.energy.budget import spent_joules
from persianmind.energy.meter.hardware import JOULES_PER_KWH
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, read_steps
from persianmind.run.records import BASE_STAGE, Prepared, RunResults, SampleText, StepRecord
from persianmind.run.scores import scores_by_stage
from persianmind.train.stages import plan_stages

RECENT_STEPS = 50  # of which the pace is taken


class RunState(StrEnum):
    """What a run is doing."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    BEGUN = "begun"  # no step yet, and nobody works on it


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """Bits per byte of a language under the untouched base and after the last stage."""

    base: float | None
    last: float

    @property
    def gained(self) -> float | None:
        """What the run took off; below zero where the language got worse. None without a base score."""
        return None if self.base is None else self.base - self.last


@dataclass(frozen=True, slots=True)
class RunStatus:
    """total_steps: None where a source in `epochs` is not built yet. left_s: of training, at the recent pace.
    trained_s: of all optimizer steps."""

    folder: RunFolder
    state: RunState
    stage: str
    step: int
    total_steps: int | None
    left_s: float | None
    trained_s: float
    tokens: int
    loss: float | None
    kwh: float
    changes: dict[str, ScoreChange]
    samples: list[SampleText]


def run_status(folder: RunFolder) -> RunStatus:
    """Reads a run folder.

    Raises:
        RunFolderError: it is none.
        DamagedFileError: results.json is not as it was written.
    """
    folder.require()
    results = read_results(folder)
    by_step = {record.step: record for record in read_steps(folder)}
    recent = deque(islice(by_step.values(), max(0, len(by_step) - RECENT_STEPS), None))
    last = recent[-1] if recent else None
    total = None if not folder.recipe.is_file() else _total_steps(folder)
    return RunStatus(
        folder=folder,
        state=_state(folder, results, last),
        stage=last.stage if last else "",
        step=last.step if last else 0,
        total_steps=total,
        left_s=_left_s(recent, total),
        trained_s=sum(record.seconds for record in by_step.values()),
        tokens=sum(record.useful_tokens for record in by_step.values()),
        loss=last.loss if last else None,
        kwh=spent_joules(folder) / JOULES_PER_KWH,
        changes=score_changes(results),
        samples=results.samples,
    )


def runs_in(folder: Path) -> Iterator[RunFolder]:
    """The run folders directly in a folder, the newest last."""
    found = [RunFolder(path) for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for run in sorted(found, key=lambda one: one.path.stat().st_mtime):
        if run.recipe.is_file():
            yield run


def score_changes(results: RunResults) -> dict[str, ScoreChange]:
    """By language, of the languages that were scored after some stage."""
    by_stage = scores_by_stage(results)
    base = by_stage.get(BASE_STAGE, {})
    later = [scores for stage, scores in by_stage.items() if stage != BASE_STAGE]
    last = later[-1] if later else {}
    return {
        language: ScoreChange(base[language].bits_per_byte if language in base else None, score.bits_per_byte)
        for language, score in last.items()
    }


def _state(folder: RunFolder, results: RunResults, last: StepRecord | None) -> RunState:
    owner = read_owner(folder.lock)
    if owner is not None and owner.may_be_alive():
        return RunState.RUNNING
    if results.finished:
        return RunState.DONE
    return RunState.BEGUN if last is None else RunState.STOPPED


def _total_steps(folder: RunFolder) -> int | None:
    recipe = load_recipe(str(folder.recipe))
    try:
        prepared = Prepared.model_validate(read_checked(folder.prepared))
        return plan_stages(recipe, prepared.sequences_by_source)[-1].last_step
    except (OSError, ValueError, DamagedFileError, PersianMindError):  # not prepared, or not built as far
        return None


def _left_s(recent: deque[StepRecord], total: int | None) -> float | None:
    if total is None or not recent:
        return None
    return (total - recent[-1].step) * sum(record.seconds for record in recent) / len(recent)

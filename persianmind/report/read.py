"""Everything the page shows, read from the files of a run; whatever is missing or damaged becomes a gap."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from persianmind.checkpoint.manifest import MANIFEST, StoredCheckpoint, read_manifest
from persianmind.common.checksum import read_checked
from persianmind.common.errors import CheckpointError, DamagedFileError, DataError, PersianMindError
from persianmind.data.manifest import Manifest, read_data_manifest
from persianmind.energy.account import account
from persianmind.energy.ledger import Ledger, read_ledger
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import Metrics, read_metrics
from persianmind.run.records import RunResults, StepRecord, read_lines
from persianmind.vocab.expansion import EXPANSION_FILE

ABSENT, DAMAGED = "not there", "damaged"


@dataclass
class RunFiles:
    """What a run folder holds. `gaps` are sentences about what it does not.

    recipe, vocab: as the files have them, of any type below the first level. valid_recipe: None where the
    recipe is none. account: None where the ledger cannot be understood.
    """

    folder: RunFolder
    recipe: dict[str, Any] = field(default_factory=dict)
    valid_recipe: Recipe | None = None
    results: RunResults = field(default_factory=RunResults)
    steps: list[StepRecord] = field(default_factory=list)
    steps_done_again: int = 0
    vocab: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Manifest] = field(default_factory=dict)
    checkpoints: list[StoredCheckpoint] = field(default_factory=list)
    account: dict[str, Any] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    gaps: list[str] = field(default_factory=list)

    def miss(self, path: Path, why: str, loss: str) -> None:
        """Notes that a file is not usable, and what is not on the page because of it."""
        self.gaps.append(f"{path.relative_to(self.folder.path)}: {why}, so {loss}")


def read_run(folder: RunFolder) -> RunFiles:
    """Reads a run folder; never raises for what is inside it."""
    run = RunFiles(folder)
    _read_recipe(run)
    _read_results(run)
    _read_checkpoints(run)
    metrics = _read_steps(run)
    run.vocab = _checked(run, folder.vocab / EXPANSION_FILE, "the new vocabulary is not shown")
    _read_data(run)
    _read_energy(run, metrics)
    return run


def _read_recipe(run: RunFiles) -> None:
    path, loss = run.folder.recipe, "the recipe is not shown"
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        run.miss(path, ABSENT, loss)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        run.miss(path, DAMAGED, loss)
    else:
        if not isinstance(value, dict):
            run.miss(path, "not a mapping", loss)
            return
        run.recipe = value
        try:
            run.valid_recipe = read_run_recipe(path)
        except (PersianMindError, OSError, ValueError, RecursionError):
            run.miss(path, "not a valid recipe", "what is shown of it may be incomplete")


def _read_results(run: RunFiles) -> None:
    path = run.folder.results
    content = _checked(run, path, "evaluation, samples and versions are not shown")
    try:
        run.results = RunResults.model_validate(content)
    except ValidationError:
        fields = (_sound_field(run, key, value) for key, value in content.items())
        sound = {key: value for found in fields for key, value in found.items()}
        run.results = RunResults.model_validate(sound)  # every field may be absent


def _sound_field(run: RunFiles, key: str, value: Any) -> dict[str, Any]:
    """One field of results.json by its name, without its wrong items; {} where it cannot be used."""
    try:
        RunResults.model_validate({key: value})
    except ValidationError as error:
        # An error without a place is that of the whole field: a number beyond all bounds.
        wrong = dict.fromkeys(_separable(item["loc"] or (key,)) for item in error.errors())
        for place in wrong:
            run.miss(run.folder.results, f"{'.'.join(map(str, place))} is not usable", "it is not shown")
        return {} if (key,) in wrong else {key: _without(value, key, wrong)}
    return {key: value}


def _separable(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of results.json that a wrong value spoils: an item of a list or mapping, or a whole field."""
    lists = (
        "evaluation",
        "within_stages",
        "results",
        "not_run",
        "published",
        "new_tokens",
        "samples",
        "versions",
    )
    return place[:2] if place[0] in lists else place[:1]


def _without(value: Any, key: str, wrong: Container[tuple[int | str, ...]]) -> Any:
    """The field `key` without its wrong items."""
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if (key, name) not in wrong}
    if isinstance(value, list):
        return [item for index, item in enumerate(value) if (key, index) not in wrong]
    return value


def _read_steps(run: RunFiles) -> Metrics:
    path, discarded = run.folder.metrics, run.folder.discarded_metrics
    try:
        found = read_metrics(run.folder, max((one.step for one in run.checkpoints), default=0))
    except OSError:
        found = Metrics([], "")
    run.steps = found.steps
    if not run.steps:
        run.miss(path, "no step in it", "the training curves are not shown")
    elif found.problem:
        run.miss(path, found.problem.partition(": ")[2], "a step without a whole line is not shown")
    # What a resumed run moved there because it does it again; a line that a kill cut short was no step.
    done_again = [record is not None for record in _lines(discarded)]
    run.steps_done_again = sum(done_again)
    if discarded.is_file() and not done_again:
        run.miss(discarded, "no step in it", "the steps done again are not known")
    if not all(done_again):
        damaged = len(done_again) - sum(done_again)
        run.miss(discarded, f"{damaged} damaged line(s)", "they are not among the steps done again")
    return found


def _lines(path: Path) -> list[StepRecord | None]:
    try:
        return list(read_lines(path, StepRecord))
    except OSError:
        return []


def _read_data(run: RunFiles) -> None:
    folders = list(_folders(run.folder.data))
    if not folders:
        run.miss(run.folder.data / "*" / MANIFEST, ABSENT, "the data are not shown")
    for folder in folders:
        try:
            run.data[folder.name] = read_data_manifest(folder)
        except (DataError, OSError, RecursionError):
            why = DAMAGED if (folder / MANIFEST).exists() else ABSENT
            run.miss(folder / MANIFEST, why, "this source is not shown")


def _read_checkpoints(run: RunFiles) -> None:
    for folder in _folders(run.folder.checkpoints):
        try:
            run.checkpoints.append(read_manifest(folder))
        except (CheckpointError, OSError):
            why = DAMAGED if (folder / MANIFEST).exists() else ABSENT
            run.miss(folder / MANIFEST, why, "this checkpoint is not shown")
    run.checkpoints.sort(key=lambda checkpoint: checkpoint.sequence)


def _read_energy(run: RunFiles, metrics: Metrics) -> None:
    folder = run.folder.energy
    loss = "energy and CO2 are not shown"
    try:
        run.ledger = read_ledger(run.folder)
        run.account = account(run.folder, metrics=metrics)
    except Exception as error:  # whatever the ledger holds, the rest of the page is made
        run.ledger, run.account = Ledger(), None
        run.miss(folder, f"not understood ({type(error).__name__}: {error})", loss)
        return
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        run.miss(folder / "*.jsonl", ABSENT, loss)
    for path in files:
        if path.stem not in run.ledger.nodes:
            run.miss(path, DAMAGED, "what this node used is not shown")


def _folders(parent: Path) -> Iterator[Path]:
    """The folders in a folder by name; hidden ones are not finished."""
    if parent.is_dir():
        yield from sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] != ".")


def _checked(run: RunFiles, path: Path, loss: str) -> dict[str, Any]:
    """A JSON object with a sound checksum, or {} and a gap."""
    try:
        return read_checked(path)
    except FileNotFoundError:
        run.miss(path, ABSENT, loss)
    except DamagedFileError:
        run.miss(path, DAMAGED, loss)
    return {}

"""Shared by the fault tests: prepared folders, what a run logged, and the counts the suite prints."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from persianmind.checkpoint.store import CheckpointStore
from persianmind.checks.device import resolve_precision
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.launch import Launched

# Sections in which runs of one folder may differ: what is not the subject is switched off.
BARE = ("export.enabled=false", "energy.enabled=false")
COUNTS: dict[str, list[int]] = {}  # line of the fault table -> [passed, asked]


def is_long() -> bool:
    """Whether the long counts are asked for (`make faults`)."""
    return os.environ.get("PERSIANMIND_LONG_TESTS") == "1"


def count(line: str, done: int, asked: int) -> None:
    """Adds to a line of the fault table; the session prints all lines at its end."""
    entry = COUNTS.setdefault(line, [0, 0])
    entry[0] += done
    entry[1] += asked


def prepared_copy(source: Path, run: Path, *overrides: str) -> Path:
    """A new run folder, of the recipe changed by `overrides`, with what preparation made of another one."""
    there, here = RunFolder(source), RunFolder(run)
    here.claim(resolve_precision(load_recipe("tiny", list(overrides)), here))
    for path in (there.data, there.vocab, there.heldout):
        shutil.copytree(path, run / path.name)
    shutil.copy2(there.prepared, here.prepared)
    return run


def metrics(run: Path, name: str = "metrics.jsonl") -> list[dict[str, object]]:
    """A dict a line; empty where nothing was logged yet."""
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def losses(launched: Launched) -> dict[int, str]:
    """Step -> exact loss."""
    return {line["step"]: line["loss_hex"] for line in launched.metrics}


def newest_step(run: Path) -> int:
    """The step a resume would begin with; 0 without a checkpoint."""
    store = CheckpointStore(run / "checkpoints", keep_last=9, keep_every_steps=None)
    found = store.newest_good()
    return found.step if found else 0


def assert_same_run(again: Launched, whole: Launched) -> None:
    """Every step once, with the loss, stage and samples of the run that nothing disturbed."""
    keys = ("step", "stage", "first_sample", "target_tokens", "loss_hex")
    assert [[line[key] for key in keys] for line in again.metrics] == [
        [line[key] for key in keys] for line in whole.metrics
    ]
    # Steps that were done twice gave the same loss both times.
    known = losses(whole)
    for line in metrics(again.run, "metrics.discarded.jsonl"):
        assert line["loss_hex"] == known[line["step"]], line  # type: ignore[index]

"""Everything the page shows, read from the files of a run; whatever is missing or damaged becomes a gap."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from persianmind.common.errors import PersianMindError
from persianmind.energy.account import account, read_metrics
from persianmind.energy.records import Ledger, read_ledger


@dataclass
class RunFiles:
    """What a run folder holds. `gaps` are sentences about what it does not."""

    folder: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    steps_done_again: int = 0
    vocab: dict[str, Any] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    energy: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    gaps: list[str] = field(default_factory=list)


def read_run(folder: Path) -> RunFiles:
    """Reads a run folder; never raises for what is inside it."""
    run = RunFiles(folder)
    run.recipe = _mapping(run, folder / "recipe.yaml", "the recipe is not shown")
    run.results = _mapping(run, folder / "results.json", "evaluation, samples and versions are not shown")
    _read_steps(run)
    run.vocab = _mapping(run, folder / "vocab" / "expansion.json", "the new vocabulary is not shown")
    for path in sorted((folder / "data").glob("*/manifest.json")):
        run.data[path.parent.name] = _mapping(run, path, "this source is not shown")
    if not run.data:
        run.gaps.append("data/*/manifest.json: not there, so the data are not shown")
    for path in (folder / "checkpoints").glob("*/manifest.json"):
        run.checkpoints.append({"name": path.parent.name, **_mapping(run, path, "not shown")})
    run.checkpoints.sort(key=lambda item: _whole(item.get("sequence", item.get("step"))))
    _read_energy(run)
    return run


def _read_steps(run: RunFiles) -> None:
    by_step: dict[tuple[str, int], dict[str, Any]] = {}
    seen = 0
    for record in read_metrics(run.folder):
        step = record.get("step")
        if not isinstance(step, int):
            continue
        seen += 1
        key = (str(record.get("stage", "")), step)
        by_step.pop(key, None)  # a step done again after a crash counts once, at its last place
        by_step[key] = record
    run.steps = list(by_step.values())
    run.steps_done_again = seen - len(run.steps) + _count_lines(run.folder / "metrics.discarded.jsonl")
    if not run.steps:
        run.gaps.append("metrics.jsonl: no step in it, so the training curves are not shown")


def _count_lines(path: Path) -> int:
    """Steps that a resumed run moved out of metrics.jsonl because it does them again."""
    if not path.is_file():
        return 0
    with path.open("rb") as handle:
        return sum(1 for line in handle if line.strip())


def _read_energy(run: RunFiles) -> None:
    try:
        run.ledger = read_ledger(run.folder)
        run.energy = account(run.folder)
    except (PersianMindError, OSError, ValueError, KeyError, TypeError) as error:
        run.gaps.append(f"energy/: not understood, so the account is not shown ({error})")
        return
    if not run.ledger.attempts:
        run.gaps.append("energy/*.jsonl: not there, so energy and CO2 are not shown")


def _mapping(run: RunFiles, path: Path, loss: str) -> dict[str, Any]:
    """A JSON or YAML mapping, or {} and a gap."""
    name = path.relative_to(run.folder)
    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except FileNotFoundError:
        run.gaps.append(f"{name}: not there, so {loss}")
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        run.gaps.append(f"{name}: damaged, so {loss}")
        return {}
    if not isinstance(value, dict):
        run.gaps.append(f"{name}: not a mapping, so {loss}")
        return {}
    return value


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def rows(value: object) -> list[dict[str, Any]]:
    """The mappings of a list; [] for anything else. Results of other versions may hold other things."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def section(value: object) -> dict[str, Any]:
    """A mapping, or {} for anything else."""
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """A finite number, or None for anything else; booleans are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None

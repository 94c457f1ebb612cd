"""The account of one run folder: ledger, the options it ran with, and the tokens it trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persianmind.common.atomic import read_json
from persianmind.common.errors import PersianMindError, RunFolderError
from persianmind.energy.ledger import read_ledger, summarise
from persianmind.recipe import Energy
from persianmind.recipe.loading import load_recipe


def account(run: Path, *, comparison: bool = True) -> dict[str, Any]:
    """`summarise` for a run folder, with whatever it holds of recipe, metrics and data manifests.

    Raises:
        RunFolderError: there is no such folder, or it is no run folder.
    """
    require_run(run)
    options, remark = _options(run)
    tokens = trained_tokens(run)
    summary = summarise(
        read_ledger(run),
        options,
        tokens=tokens,
        characters=trained_characters(run, tokens),
        folder=run,
        comparison=comparison,
    )
    if remark:
        summary["problems"].append(remark)
    return summary


def require_run(run: Path) -> None:
    """Refuses what is no run folder.

    Raises:
        RunFolderError: with what was expected there.
    """
    if not run.is_dir():
        raise RunFolderError(f"no run folder {run}; give the folder a run wrote, such as runs/demo")
    if not any((run / name).exists() for name in ("recipe.yaml", "metrics.jsonl", "results.json", "energy")):
        raise RunFolderError(f"{run} is no run folder: it holds no recipe.yaml, metrics.jsonl or energy/")


def _options(run: Path) -> tuple[Energy, str]:
    path = run / "recipe.yaml"
    if not path.is_file():
        return Energy(), "recipe.yaml is missing: PUE and grid intensity are the defaults"
    try:
        return load_recipe(str(path)).energy, ""
    except (PersianMindError, OSError, RecursionError) as error:
        return Energy(), f"recipe.yaml cannot be used, PUE and grid intensity are the defaults ({error})"


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl; lines that a kill cut short are left out."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return
    with path.open("rb") as handle:
        for line in handle:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def trained_tokens(run: Path) -> int | None:
    """Useful tokens of the steps that count: of a step done twice, the last time."""
    by_step: dict[tuple[str, int], int] = {}
    for record in read_metrics(run):
        tokens = record.get("useful_tokens", record.get("tokens"))
        step = record.get("step")
        if isinstance(tokens, int) and isinstance(step, int):
            by_step[str(record.get("stage", "")), step] = tokens
    return sum(by_step.values()) or None


def trained_characters(run: Path, trained: int | None) -> int | None:
    """Characters trained on: the `trained` tokens times the characters a token of the data manifests."""
    characters = tokens = 0
    for path in sorted((run / "data").glob("*/manifest.json")):
        try:
            manifest = read_json(path)
        except (PersianMindError, RecursionError):
            continue
        if not isinstance(manifest, dict):
            continue
        pair = manifest.get("characters"), manifest.get("tokens")
        if all(isinstance(value, int) and value > 0 for value in pair):
            characters, tokens = characters + int(pair[0] or 0), tokens + int(pair[1] or 0)
    return None if not tokens or trained is None else round(trained * characters / tokens)

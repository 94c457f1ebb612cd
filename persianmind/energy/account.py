"""The account of one run folder: ledger, the options it ran with, and the tokens it trained on."""

from __future__ import annotations

from typing import Any

from persianmind.common.errors import DataError, PersianMindError
from persianmind.data.manifest import MANIFEST, read_data_manifest
from persianmind.energy.ledger import read_ledger
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import Metrics, read_metrics


def account(folder: RunFolder, *, metrics: Metrics | None = None, comparison: bool = True) -> dict[str, Any]:
    """`summarise` for a run folder, with whatever it holds of recipe, metrics and data manifests.

    metrics: where they were read before.

    Raises:
        RunFolderError: there is no such folder, or it is no run folder.
    """
    folder.require()
    options, remark = _options(folder)
    metrics, problems = metrics or read_metrics(folder), []
    tokens = sum(step.useful_tokens for step in metrics.steps) or None
    if remark:
        problems.append(remark)
    if metrics.problem:
        problems.append(f"{metrics.problem}; what is missing is not among the tokens trained on")
    characters = _trained_characters(folder, tokens, problems)
    summary = summarise(
        read_ledger(folder),
        options,
        tokens=tokens,
        characters=characters,
        folder=folder.path,
        comparison=comparison,
    )
    summary["problems"] += problems
    return summary


def _options(folder: RunFolder) -> tuple[Energy, str]:
    if not folder.recipe.is_file():
        return Energy(), "recipe.yaml is missing: PUE and grid intensity are the defaults"
    try:
        return read_run_recipe(folder.recipe).energy, ""
    except (PersianMindError, OSError, RecursionError) as error:
        return Energy(), f"recipe.yaml cannot be used, PUE and grid intensity are the defaults ({error})"


def _trained_characters(folder: RunFolder, trained: int | None, problems: list[str]) -> int | None:
    """Characters trained on: the `trained` tokens times the characters per token of the data manifests."""
    if trained is None or not folder.data.is_dir():
        return None
    characters = tokens = 0
    for source in sorted(path for path in folder.data.iterdir() if (path / MANIFEST).is_file()):
        try:
            manifest = read_data_manifest(source)
        except DataError as error:
            problems.append(f"characters are counted without {source.name}: {error}")
            continue
        if manifest.characters and manifest.tokens:
            characters, tokens = characters + manifest.characters, tokens + manifest.tokens
    return round(trained * characters / tokens) if tokens else None

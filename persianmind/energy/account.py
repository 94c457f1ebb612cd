"""The account of one run folder: ledger, the options it ran with, and the tokens it trained on."""

from __future__ import annotations

from typing import Any

from persianmind.common.errors import DataError, PersianMindError
from persianmind.data.manifest import read_data_manifest
from persianmind.energy.ledger import read_ledger
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_steps


def account(folder: RunFolder, *, comparison: bool = True) -> dict[str, Any]:
    """`summarise` for a run folder, with whatever it holds of recipe, metrics and data manifests.

    Raises:
        RunFolderError: there is no such folder, or it is no run folder.
    """
    folder.require()
    options, remark = _options(folder)
    tokens = trained_tokens(folder)
    summary = summarise(
        read_ledger(folder),
        options,
        tokens=tokens,
        characters=trained_characters(folder, tokens),
        folder=folder.path,
        comparison=comparison,
    )
    if remark:
        summary["problems"].append(remark)
    return summary


def _options(folder: RunFolder) -> tuple[Energy, str]:
    if not folder.recipe.is_file():
        return Energy(), "recipe.yaml is missing: PUE and grid intensity are the defaults"
    try:
        return load_recipe(str(folder.recipe)).energy, ""
    except (PersianMindError, OSError, RecursionError) as error:
        return Energy(), f"recipe.yaml cannot be used, PUE and grid intensity are the defaults ({error})"


def trained_tokens(folder: RunFolder) -> int | None:
    """Useful tokens of the steps that count: of a step done twice, the last time. None without any."""
    by_step = {record.step: record.useful_tokens for record in read_steps(folder)}
    return sum(by_step.values()) or None


def trained_characters(folder: RunFolder, trained: int | None) -> int | None:
    """Characters trained on: the `trained` tokens times the characters per token of the data manifests."""
    if trained is None or not folder.data.is_dir():
        return None
    characters = tokens = 0
    for source in sorted(folder.data.iterdir()):
        try:
            manifest = read_data_manifest(source)
        except DataError:
            continue
        if manifest.characters and manifest.tokens:
            characters, tokens = characters + manifest.characters, tokens + manifest.tokens
    return round(trained * characters / tokens) if tokens else None

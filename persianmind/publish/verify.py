"""`persianmind verify PATH`: whether every byte of an export, a checkpoint, a run or a data folder is as it
was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from persianmind.checkpoint.manifest import read_manifest
from persianmind.checkpoint.pointer import POINTER
from persianmind.checkpoint.retention import checkpoint_folders
from persianmind.checkpoint.store import CheckpointStore
from persianmind.checkpoint.verify import examine_checkpoint
from persianmind.common.checksum import parse_checked_line, read_checked
from persianmind.common.errors import PersianMindError, UsageError
from persianmind.data.build.job import QUARANTINE
from persianmind.data.manifest import BUILDING, read_building, read_data_manifest, verify_shard
from persianmind.data.manifest import MANIFEST as DATA_MANIFEST
from persianmind.energy.ledger import read_ledger
from persianmind.publish.manifest import MANIFEST, export_damage
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.identity import recipe_fingerprint
from persianmind.run.log import read_metrics, read_results
from persianmind.text.heldout import INDEX, read_held_out, read_index
from persianmind.vocab.expansion import EXPANSION_FILE, load_expansion


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one part is and what is wrong with it; no problems where every byte is as written.

    part: its place.
    """

    part: Path
    what: str
    problems: list[str]


def verify_path(path: Path) -> list[Verdict]:
    """Reads everything at `path` that carries a checksum.

    Raises:
        UsageError: nothing of ours lies there.
    """
    run = RunFolder(path)
    if run.recipe.is_file():
        return _verify_run(run)
    manifest = _tree(path / MANIFEST)
    if "world_size" in manifest:
        return [_verdict(path, "checkpoint", lambda: examine_checkpoint(path)[1])]
    if "adapter_scale" in manifest:
        return [_verdict(path, "export", lambda: export_damage(path))]
    if (path / EXPANSION_FILE).is_file():
        return [_verdict(path, "vocabulary", lambda: _nothing(load_expansion(path)))]
    if (path / INDEX).is_file():
        return [_verdict(path, "held-out text", lambda: _held_out(path))]
    if verdicts := _verify_data(path):
        return verdicts
    raise UsageError(
        f"{path} is no whole export, checkpoint, run, vocabulary or data folder of ours; give the folder "
        "that holds manifest.json or recipe.yaml"
    )


def _verify_run(run: RunFolder) -> list[Verdict]:
    verdicts = [_verdict(run.recipe, "recipe", lambda: _recipe(run))]
    objects = [
        (run.engine_config, "engine config"),
        (run.prepared, "preparation"),
        (run.results, "results"),
        (run.builder_log.with_suffix(".json"), "plan of the builder"),
        (run.checkpoints / POINTER, "pointer"),
        (run.power_limits, "power limits"),
        *((path, "scores of the base") for path in sorted(run.evaluation.glob("*.json"))),
    ]
    for path, what in objects:
        if path.is_file():
            verdicts.append(_verdict(path, what, partial(_checked, path)))
    for path in [run.metrics, *sorted(run.evaluation.rglob("*.jsonl")), *sorted(run.energy.glob("*.jsonl"))]:
        if path.is_file():
            verdicts.append(_verdict(path, "records", partial(_lines, path)))
    if run.metrics.is_file():
        verdicts.append(_verdict(run.metrics, "steps", lambda: _steps(run)))
    verdicts.append(_verdict(run.evaluation, "new tokens", lambda: _new_tokens(run)))
    if run.energy.is_dir():
        verdicts.append(_verdict(run.energy, "energy", lambda: read_ledger(run).damage))
    parts = [run.vocab, run.heldout, run.export]
    if run.checkpoints.is_dir():
        parts += checkpoint_folders(run.checkpoints)
    for part in parts:
        if part.is_dir() and any(part.iterdir()):
            verdicts += verify_path(part)
    return [*verdicts, *(_verify_data(run.data) if run.data.is_dir() else [])]


def _verify_data(path: Path) -> list[Verdict]:
    """A folder of token shards, or a folder of such folders."""
    folders = [path, *sorted(one for one in path.iterdir() if one.is_dir())] if path.is_dir() else []
    return [
        _verdict(folder, "data", partial(_shards, folder))
        for folder in folders
        if (folder / DATA_MANIFEST).is_file() or (folder / BUILDING).is_file()
    ]


def _shards(folder: Path) -> list[str]:
    problems = []
    if (folder / DATA_MANIFEST).is_file():
        manifest = read_data_manifest(folder)
        shards = manifest.shards
        problems += _bad_records(folder / QUARANTINE, sum(manifest.rejected.values()))
    else:
        building = read_building(folder)
        shards = [] if building is None else building.shards
    for entry in shards:
        try:
            verify_shard(folder, entry)
        except PersianMindError as error:
            problems.append(str(error))
    return problems


def _bad_records(path: Path, count: int) -> list[str]:
    """The list of bad records, of which the manifest says how many there are."""
    problems = _lines(path) if path.is_file() else []
    listed = len(path.read_bytes().splitlines()) if path.is_file() else 0
    return problems + ([] if listed == count else [f"{path} lists {listed} of {count} bad records"])


def _steps(run: RunFolder) -> list[str]:
    """Each step once, as far as the newest checkpoint at least."""
    saved = CheckpointStore(run.checkpoints, keep_last=1, keep_every_steps=None).readable()
    problem = read_metrics(run, saved[0].step if saved else 0).problem
    return [problem] if problem else []


def _new_tokens(run: RunFolder) -> list[str]:
    problems = []
    for stated in read_results(run).new_tokens:
        path = run.new_tokens(stated.stage)
        listed = len(path.read_bytes().splitlines()) if path.is_file() else 0
        if listed != stated.n:
            problems.append(f"{path} lists {listed} of {stated.n} new tokens")
    return problems


def _held_out(folder: Path) -> list[str]:
    for language in read_index(folder).languages:
        read_held_out(folder, language)
    return []


def _checked(path: Path) -> list[str]:
    read_checked(path)
    return []


def _lines(path: Path) -> list[str]:
    lines = path.read_bytes().splitlines()
    return [
        f"{path}: line {number} is damaged"
        for number, line in enumerate(lines, 1)
        if parse_checked_line(line) is None
    ]


def _recipe(run: RunFolder) -> list[str]:
    """A YAML file that people read: what the run depends on in it is part of every checkpoint."""
    here = recipe_fingerprint(read_run_recipe(run.recipe))
    for folder in checkpoint_folders(run.checkpoints) if run.checkpoints.is_dir() else []:
        checkpoint = read_manifest(folder)
        if checkpoint.metadata.get("recipe_fingerprint") != here:
            return [f"{run.recipe} is not the recipe that {folder.name} was trained with"]
    return []


def _tree(path: Path) -> dict[str, Any]:
    """The keys of a manifest of any kind; nothing where it cannot be parsed."""
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _verdict(path: Path, what: str, examine: Callable[[], list[str]]) -> Verdict:
    try:
        return Verdict(path, what, examine())
    except (PersianMindError, OSError) as error:
        return Verdict(path, what, [str(error)])


def _nothing(_: object) -> list[str]:
    """Reading it was the check."""
    return []

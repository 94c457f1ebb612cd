"""Every kind of file that is read again, where it lies, and the product's own reader of it.

A reader gives what the product would go on with; damage it raises as a PersianMindError or says in the log.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.checkpoint.pointer import read_pointer
from persianmind.checkpoint.verify import examine_checkpoint
from persianmind.common.errors import BuildFailedError, DamagedFileError
from persianmind.data.build.builder import build_source
from persianmind.data.build.worker import read_plan
from persianmind.data.manifest import read_data_manifest
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.incremental import IncrementalDataset, read_failure
from persianmind.energy.ledger import read_ledger
from persianmind.energy.power import limits
from persianmind.engine.ranks import Ranks
from persianmind.evaluate.item_files import ItemFile
from persianmind.model.made_bases import made_once, verify_made
from persianmind.publish.manifest import require_whole_export
from persianmind.publish.verify import verify_path
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe
from persianmind.report.read import read_run
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, read_steps
from persianmind.text.heldout import read_held_out, read_index
from persianmind.train.callbacks.forgetting import read_base_documents
from persianmind.train.callbacks.watchdog import Watchdog
from persianmind.train.prepare import read_prepared
from persianmind.vocab.expansion import load_expansion
from tests.checkpoint.helpers import newest
from tests.data.helpers import files_of, make_job
from tests.data.read.helpers import prints


@dataclass(frozen=True)
class Ground:
    """What is damaged: a finished run, an interrupted build of `recipe`, a base that was made here."""

    run: RunFolder
    build: Path
    recipe: Recipe
    tokenizer: Path

    @property
    def done(self) -> Path:
        """The same build, finished."""
        return self.build.with_name("done")

    @property
    def failed(self) -> Path:
        return self.build.with_name("failed")


@dataclass(frozen=True)
class Kind:
    """One kind of file. pattern: below the run, or below `at`. lines: whether it is JSON lines."""

    name: str
    read: Callable[[Ground, Path], Any]
    pattern: str
    at: Callable[[Ground], Path] = lambda ground: ground.run.path
    lines: bool = False

    def files(self, ground: Ground) -> list[Path]:
        found = sorted(self.at(ground).glob(self.pattern))
        return [path for path in found if path.is_file() and path.stat().st_size]

    def read_quietly(self, ground: Ground, path: Path) -> Any:
        """What an undamaged file gives; of one that only says why something failed, the error."""
        try:
            return self.read(ground, path)
        except BuildFailedError as error:
            return str(error)


def _raise(problems: list[str]) -> None:
    if problems:
        raise DamagedFileError("; ".join(problems))


def _verified(ground: Ground, path: Path) -> None:
    _raise([problem for verdict in verify_path(ground.run.path) for problem in verdict.problems])


def _bad_records(ground: Ground, path: Path) -> None:
    _raise([problem for verdict in verify_path(path.parent) for problem in verdict.problems])


def _shards(ground: Ground, path: Path) -> list[bytes]:
    dataset = TokenDataset(path.parent)
    return [dataset.sequence(i).input_ids.tobytes() for i in range(len(dataset))]


def _finished_build(ground: Ground, path: Path) -> dict[str, bytes]:
    """The files that the build comes to when it goes on from what is there."""
    copy = ground.build.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ground.build, copy)
    heldout = ground.build.with_name("heldout")
    build_source(make_job(ground.recipe, "fa", ground.tokenizer, copy, heldout))
    return files_of(copy)


def _published(ground: Ground, path: Path) -> Any:
    return IncrementalDataset(path.parent, prints(ground.recipe, "fa", ground.tokenizer)).shards


def _failure(ground: Ground, path: Path) -> None:
    raise BuildFailedError(read_failure(path.parent))


def _held_out(ground: Ground, path: Path) -> Any:
    folder = ground.run.heldout
    return [read_held_out(folder, language) for language in read_index(folder).languages]


def _metrics(ground: Ground, path: Path) -> Any:
    """As a start reads it that goes on from the newest checkpoint."""
    return read_steps(ground.run, newest(ground.run.checkpoints).step)


def _discarded(ground: Ground, path: Path) -> int:
    found = read_run(ground.run)
    _raise([gap for gap in found.gaps if path.name in gap])
    return found.steps_done_again


def _base_documents(ground: Ground, path: Path) -> list[float]:
    return read_base_documents(ground.run, "fa")


def _items(ground: Ground, path: Path) -> Any:
    """What is there, and the rest scored again."""
    return {item: {"item": item, "loss": 0.5 * item} for item in range(9)} | ItemFile(path, "key").read()


def _ledger(ground: Ground, path: Path) -> Any:
    ledger = read_ledger(ground.run)
    _raise(ledger.damage)
    return ledger


def _power_limits(ground: Ground, path: Path) -> Any:
    set_to: list[tuple[int, float]] = []
    ordinary, raw = limits.set_limit, path.read_bytes()
    limits.set_limit = lambda *one: set_to.append(one)
    try:
        limits.restore_from(path)
    finally:
        limits.set_limit = ordinary
        path.write_bytes(raw)  # it is removed once all are put back
    return set_to


def _heartbeat(ground: Ground, path: Path) -> Any:
    """What a rank takes from it; a damaged one is none, and the next is written a moment later."""
    watchdog = Watchdog(ground.run, Ranks(0, 2, 0, 2), 60, ())
    watchdog._read()
    found = watchdog._seen.get(int(path.stem.removeprefix("rank-")))
    if found is None:
        raise DamagedFileError(f"{path.name} gives no sign of life")
    return found.beat


def _checkpoint(ground: Ground, path: Path) -> None:
    (folder,) = (one for one in path.parents if one.name.startswith("step-"))
    _raise(examine_checkpoint(folder)[1])


def _made_base(ground: Ground, path: Path) -> None:
    verify_made.cache_clear()
    made_once(path.parent.name, lambda folder: None)


def _whole_export(ground: Ground, path: Path) -> None:
    require_whole_export(path.parent)


def _results(ground: Ground, path: Path) -> Any:
    return read_results(ground.run)


KINDS = [
    Kind("build state", _finished_build, ".state.safetensors", lambda ground: ground.build),
    Kind("shards of a build", _finished_build, "shard-*", lambda ground: ground.build),
    Kind("building.json", _published, "building.json", lambda ground: ground.build),
    Kind("failed.json", _failure, "failed.json", lambda ground: ground.failed),
    Kind("builder.json", lambda ground, path: read_plan(path), "builder.json"),
    Kind("data manifest", lambda ground, path: read_data_manifest(path.parent), "data/*/manifest.json"),
    Kind("token shards", _shards, "data/*/shard-*"),
    Kind("quarantine", _bad_records, "quarantine.jsonl", lambda ground: ground.done, lines=True),
    Kind("vocabulary", lambda ground, path: load_expansion(path.parent), "vocab/*"),
    Kind("held-out text", _held_out, "heldout/*"),
    Kind("recipe.yaml", lambda ground, path: read_run_recipe(path), "recipe.yaml"),
    Kind("prepared.json", lambda ground, path: read_prepared(ground.run), "prepared.json"),
    Kind("engine.json", _verified, "engine.json"),
    Kind("results.json", _results, "results.json"),
    Kind("metrics.jsonl", _metrics, "metrics.jsonl", lines=True),
    Kind("metrics.discarded.jsonl", _discarded, "metrics.discarded.jsonl"),
    Kind("scores of the base", _base_documents, "evaluation/base-*.json"),
    Kind("records of items", _items, "evaluation/items/*.jsonl", lines=True),
    Kind("new tokens", _verified, "evaluation/new-tokens-*.jsonl", lines=True),
    Kind("energy ledger", _ledger, "energy/*.jsonl", lines=True),
    Kind("power-limits.json", _power_limits, "energy/power-limits.json"),
    Kind("heartbeats", _heartbeat, "heartbeats/*"),
    Kind("checkpoints", _checkpoint, "checkpoints/step-*/**/*"),
    Kind("latest.json", lambda ground, path: read_pointer(path.parent), "checkpoints/latest.json"),
    Kind("export", _whole_export, "export/*"),
    Kind("made bases", _made_base, "made-bases/*/*"),
]

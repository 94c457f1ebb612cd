"""Everything a run needs before the process group exists: base, vocabulary, and the data step 1 needs whole.

One process (rank 0) does it; the others wait for `prepared.json`. No collective is open meanwhile, so no
ten-minute timeout of a collective can hit a long preparation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.atomic import read_json, write_json
from persianmind.common.errors import DataError, RunInterruptedError
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    from persianmind.data.manifest import Fingerprints
    from persianmind.energy.meter.client import EnergyMeter

MARKER = "prepared.json"
BUILDER_LOG = "builder.log"
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Prepared:
    """What preparation found or made; paths are relative to the run folder."""

    base_fingerprint: str
    tokenizer_fingerprint: str
    sequences_by_source: dict[str, int | None]  # None: built while training runs
    fingerprints: dict[str, dict[str, str]]  # of each source's shards, data/manifest.py

    @property
    def to_build(self) -> list[str]:
        """Sources that are not whole yet, in the recipe's order."""
        return [name for name, sequences in self.sequences_by_source.items() if sequences is None]


def vocabulary_sources(recipe: Recipe) -> list[str]:
    """Sources the tokenizer is trained on: `vocab.sources`, or every one that is not English."""
    return recipe.vocab.sources or [n for n, source in recipe.sources.items() if source.language != "en"]


def prepare(recipe: Recipe, run: Path, say: Callable[[str], None], meter: EnergyMeter | None) -> Prepared:
    """Makes what is missing below `run` and returns at once what is there already.

    Raises:
        PersianMindError: whatever the rooms below raise, before anything half-made is left behind.
    """
    from persianmind.data.build.source import build_fingerprints
    from persianmind.model.bases import base_fingerprint, resolve_base
    from persianmind.text.documents import check_held_out, training_texts
    from persianmind.tokenizer import FolderTokenizer
    from persianmind.vocab.build import build_vocab
    from persianmind.vocab.expansion import load_expansion

    def mark(what: str) -> None:
        say(f"prepare: {what}")
        if meter is not None:
            meter.mark(f"prepare:{what.split()[0]}", 0)

    check_held_out(recipe)
    mark("base model")
    base = resolve_base(recipe.base)
    vocab = run / "vocab"
    if not (vocab / "expansion.json").is_file():
        mark(f"vocabulary of {recipe.vocab.new_tokens} new tokens")
        sources = vocabulary_sources(recipe)
        build_vocab(
            base,
            lambda: training_texts(recipe, sources),
            vocab,
            new_tokens=recipe.vocab.new_tokens,
            train_size=recipe.vocab.train_size,
            pad_token=recipe.vocab.pad_token,
        )
    tokenizer = FolderTokenizer(vocab)
    names = recipe.stage_sources()
    prints = {name: build_fingerprints(recipe, name, tokenizer) for name in names}
    sequences = {name: _sequences(recipe, name, run, prints[name], mark) for name in names}
    prepared = Prepared(
        base_fingerprint(base),
        load_expansion(vocab).fingerprint,
        sequences,
        {name: one.model_dump() for name, one in prints.items()},
    )
    if prepared.to_build:
        say(f"prepare: {', '.join(prepared.to_build)}: built while training runs, see {run / BUILDER_LOG}")
    write_json(run / MARKER, asdict(prepared))
    return prepared


def _sequences(
    recipe: Recipe, name: str, run: Path, fingerprints: Fingerprints, mark: Callable[[str], None]
) -> int | None:
    """The sequences of one source, built now if step 1 needs all of them; None: left for the builder."""
    from persianmind.data.build.priority import needed_whole
    from persianmind.data.build.source import build_source, finished_build
    from persianmind.data.read.incremental import clear_failure

    folder = run / "data" / name
    clear_failure(folder)
    if name in needed_whole(recipe):
        mark(f"data of {name}")
        return build_source(recipe, name, run / "vocab", folder).sequences
    if (finished := finished_build(folder, fingerprints)) is not None:
        return finished.sequences
    _refuse_changed(name, run, fingerprints)
    return None


def _refuse_changed(name: str, run: Path, fingerprints: Fingerprints) -> None:
    """Once steps were done, an unfinished build may only be gone on with: they may have used its first
    sequences.

    Raises:
        DataError: it would be started anew.
    """
    from persianmind.data.manifest import read_building

    published = read_building(run / "data" / name)
    if published is None or published.fingerprints == fingerprints:
        return
    if any((run / "checkpoints").glob("step-*")):
        raise DataError(
            f"sources.{name} is not what {run / 'data' / name} was begun with, and steps were done since: "
            "restore it, or delete that folder if no stage has used it yet, or give another --output"
        )


def wait_until_prepared(run: Path, stop_requested: Callable[[], bool] | None = None) -> None:
    """Blocks until rank 0 has prepared.

    Raises:
        RunInterruptedError: `stop_requested` says so. A launcher ends the process by a signal instead.
    """
    while not (run / MARKER).is_file():
        if stop_requested is not None and stop_requested():
            raise RunInterruptedError(
                "stopped while another process prepared the run; run the same command to go on"
            )
        time.sleep(POLL_S)


def read_prepared(run: Path) -> Prepared:
    """What `prepare` wrote."""
    return Prepared(**read_json(run / MARKER))

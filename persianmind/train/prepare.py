"""Everything a run needs before the process group exists: base, vocabulary, packed data.

One process (rank 0) does it; the others wait for `prepared.json`. No collective is open meanwhile, so no
ten-minute timeout of a collective can hit a long preparation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.errors import Interrupted
from persianmind.files import read_json, write_json
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    from persianmind.energy.meter import EnergyMeter

MARKER = "prepared.json"
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Prepared:
    """What preparation found or made; paths are relative to the run folder."""

    base_fingerprint: str
    tokenizer_fingerprint: str
    rows_by_source: dict[str, int]


def vocabulary_sources(recipe: Recipe) -> list[str]:
    """Sources the tokenizer is trained on: `vocab.sources`, or every one that is not English."""
    return recipe.vocab.sources or [n for n, source in recipe.sources.items() if source.language != "en"]


def prepare(recipe: Recipe, run: Path, say: Callable[[str], None], meter: EnergyMeter | None) -> Prepared:
    """Makes what is missing below `run` and returns at once what is there already.

    Raises:
        PersianMindError: whatever the rooms below raise, before anything half-made is left behind.
    """
    from persianmind.data.build import build_source
    from persianmind.model.bases import base_fingerprint, resolve_base
    from persianmind.text.documents import check_held_out, training_texts
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
    rows = {}
    for name in recipe.stage_sources():
        mark(f"data of {name}")
        rows[name] = build_source(recipe, name, vocab, run / "data" / name).rows
    prepared = Prepared(base_fingerprint(base), load_expansion(vocab).fingerprint, rows)
    write_json(run / MARKER, asdict(prepared))
    return prepared


def wait_until_prepared(run: Path, stop_requested: Callable[[], bool] | None = None) -> None:
    """Blocks until rank 0 has prepared.

    Raises:
        Interrupted: `stop_requested` says so. A launcher ends the process by a signal instead.
    """
    while not (run / MARKER).is_file():
        if stop_requested is not None and stop_requested():
            raise Interrupted("stopped while another process prepared the run; run the same command to go on")
        time.sleep(POLL_S)


def read_prepared(run: Path) -> Prepared:
    """What `prepare` wrote."""
    return Prepared(**read_json(run / MARKER))

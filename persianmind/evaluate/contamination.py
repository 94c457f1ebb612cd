"""Which items of a test stand in the data that a run was trained on.

An item's texts are tokenised as the run's data were, and each run of N of its tokens is looked for in all
token shards of the run. Tokens at the ends of a text may be cut otherwise in the shards; those within are the
same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from persianmind.common.errors import PersianMindError
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.dataset import TokenDataset
from persianmind.evaluate.items import Item
from persianmind.run.folder import RunFolder
from persianmind.tokenizer import FolderTokenizer
from persianmind.vocab.expansion import load_expansion

NGRAM = 13  # tokens; about nine words with an expanded vocabulary
CONTAMINATED = 0.5  # of an item's runs of tokens
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BLOCK_SEQUENCES = 512
Hashes = NDArray[np.uint64]


def item_overlaps(run: Path, items: Sequence[Item], language: str) -> list[float] | None:
    """For each item, the part of its runs of `NGRAM` tokens that stands in the run's training data; 0.0 for
    an item that is shorter than a run. None where the run has no data that can be read.

    Args:
        run: a run folder.
        language: of the items, by whose rules they are spelled as the data were.
    """
    folder = RunFolder(run)
    datasets = list(_datasets(folder))
    if not datasets:
        return None
    from persianmind.language import profile_for
    from persianmind.recipe.loading import read_run_recipe

    recipe = read_run_recipe(folder.recipe)
    normalise = profile_for(language, recipe.profiles).normalise
    load_expansion(folder.vocab)  # its files are those that the data were written with
    tokenizer = FolderTokenizer(folder.vocab)
    hashes = [
        np.concatenate([_ngram_hashes(np.array(ids, dtype=np.uint64)) for ids in tokenizer.encode(texts)])
        for texts in ([normalise(text, recipe.normalise) for text in item.texts] for item in items)
    ]
    wanted = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, dtype=np.uint64)
    seen = np.zeros(len(wanted), dtype=bool)
    for dataset in datasets:
        _mark_seen(dataset, wanted, seen)
    found = wanted[seen]
    return [float(np.isin(own, found).mean()) if len(own) else 0.0 for own in hashes]


def trained_files(run: Path) -> set[str]:
    """SHA-256 of the files that the run's instruction sources are made of: none of them may be a test."""
    from persianmind.evaluate.rows import data_sha256
    from persianmind.recipe.loading import read_run_recipe
    from persianmind.text.sources.locate import locate

    recipe = read_run_recipe(RunFolder(run).recipe)
    found: set[str] = set()
    for name, source in recipe.sources.items():
        if source.kind == "text":
            continue
        try:
            files = [file.uri for file in locate(name, source) if not file.remote]
        except PersianMindError:  # moved since; its shards are looked into all the same
            continue
        found |= {data_sha256([uri]) for uri in files if Path(uri).is_file()}
    return found


def _datasets(folder: RunFolder) -> Iterable[TokenDataset]:
    if not folder.data.is_dir():
        return
    for path in sorted(folder.data.iterdir()):
        if (path / MANIFEST).is_file():  # one that is still being built has none
            yield TokenDataset(path)


def _mark_seen(dataset: TokenDataset, wanted: Hashes, seen: NDArray[np.bool_]) -> None:
    total = dataset.num_sequences or 0
    for start in range(0, total, _BLOCK_SEQUENCES):
        rows = [dataset.sequence(i).input_ids for i in range(start, min(start + _BLOCK_SEQUENCES, total))]
        found = _ngram_hashes(np.concatenate(rows).astype(np.uint64))
        places = np.searchsorted(wanted, found)
        places[places == len(wanted)] = 0
        if len(wanted):
            seen[places[wanted[places] == found]] = True


def _ngram_hashes(ids: Hashes) -> Hashes:
    """A polynomial hash of each run of `NGRAM` ids, modulo 2**64; uint64 [n - NGRAM + 1]."""
    count = len(ids) - NGRAM + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    found = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(NGRAM):
            found = found * _BASE + ids[offset : offset + count] + np.uint64(1)
    return found

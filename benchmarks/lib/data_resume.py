"""Parts of benchmarks/data.py: going on after N tokens, the first batch, memory while reading.

Each takes the benchmark's folder and a number of tokens, and runs in a process of its own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.lib.data_parts import SEQ_LEN, peak_mib


def make_packed(folder: Path, tokens: int) -> dict[str, Any]:
    """Packed sequences of random tokens for the resume measurements: ours, and the same as an Arrow
    dataset."""
    import numpy as np
    from datasets import Dataset

    from persianmind.data.build.builder import build_source
    from persianmind.data.build.source import source_job
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.recipe import Recipe

    sequences = tokens // SEQ_LEN + 64
    chance = np.random.default_rng(0)
    corpus = folder / "packed.jsonl"
    with corpus.open("w") as handle:  # digits and dashes; cut into sequences as they come
        for i in range(sequences):
            numbers = chance.integers(0, 10, SEQ_LEN - 16).tolist()
            handle.write(json.dumps({"text": f"{i} " + "-".join(map(str, numbers))}) + "\n")
    recipe = Recipe.model_validate(
        {
            "name": "packed",
            "base": "none",
            "sources": {"fa": {"uri": str(corpus)}},
            "stages": [{"name": "one", "sources": {"fa": 1.0}, "epochs": 1.0}],
            "data": {"seq_len": SEQ_LEN, "sequences_per_shard": 512},
            "quality": {"enabled": False},
        }
    )
    out = folder / "packed"
    build_source(
        source_job(recipe, recipe.packing("fa"), tokenizer=folder / "tokenizer", out=out, heldout=folder)
    )
    dataset = TokenDataset(folder / "packed")
    generator = ({"input_ids": dataset.sequence(i).input_ids} for i in range(len(dataset)))
    Dataset.from_list(list(generator)).save_to_disk(folder / "packed-hf")
    return {"sequences": len(dataset)}


def resume_ours(folder: Path, tokens: int) -> dict[str, Any]:
    """From nothing (imports done) to the first batch after `tokens` consumed tokens."""
    from persianmind.data.read.batches import StageData
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.data.read.order import Mixture

    start = time.perf_counter()
    dataset = TokenDataset(folder / "packed")
    data = StageData(Mixture({"fa": len(dataset)}, {"fa": 1.0}, 100, 0), {"fa": dataset})
    first = tokens // SEQ_LEN
    batch = data.batch(range(first, first + 8))
    seconds = time.perf_counter() - start
    assert batch["input_ids"].shape == (8, SEQ_LEN)
    return {"seconds": seconds}


def resume_hf(folder: Path, tokens: int) -> dict[str, Any]:
    """What the HF Trainer does with a map-style dataset: a shuffled DataLoader, its first batches skipped."""
    return _resume_hf(folder, tokens, iterable=False)


def resume_hf_iterable(folder: Path, tokens: int) -> dict[str, Any]:
    """The same with an iterable dataset, which is what streaming gives: sequences are read and thrown
    away."""
    return _resume_hf(folder, tokens, iterable=True)


def _resume_hf(folder: Path, tokens: int, *, iterable: bool) -> dict[str, Any]:
    from accelerate import skip_first_batches
    from datasets import load_from_disk
    from torch.utils.data import DataLoader

    start = time.perf_counter()
    sequences = load_from_disk(str(folder / "packed-hf")).with_format("torch")
    if iterable:
        sequences = sequences.to_iterable_dataset()
    loader = DataLoader(sequences, batch_size=8, shuffle=not iterable)
    loader = skip_first_batches(loader, tokens // SEQ_LEN // 8)
    batch = next(iter(loader))
    seconds = time.perf_counter() - start
    assert batch["input_ids"].shape == (8, SEQ_LEN)
    return {"seconds": seconds}


def first_batch(folder: Path, size: int) -> dict[str, Any]:
    """From a finished build to the first batch, and the peak memory of reading 200 batches."""
    from persianmind.data.read.batches import StageData
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.data.read.order import Mixture

    start = time.perf_counter()
    dataset = TokenDataset(folder / f"out-{size}-False")
    data = StageData(Mixture({"fa": len(dataset)}, {"fa": 1.0}, 100, 0), {"fa": dataset})
    data.batch(range(8))
    seconds = time.perf_counter() - start
    for first in range(0, 1600, 8):
        data.batch(range(first, first + 8))
    return {"first_batch_s": seconds, "read_peak_mib": peak_mib()}

"""Parts of benchmarks/data.py: throughput, fill and losses of our data line, of HF's group_texts and of TRL.

Each takes the benchmark's folder and the size of its corpus in tokens, and runs in a process of its own.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

SEQ_LEN = 2048
QUALITY = {"max_symbol_ratio": 1.0}  # lines of code among the text are wanted here


def peak_mib() -> float:
    """The most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ours(folder: Path, size: int, *, fast: bool) -> dict[str, Any]:
    from persianmind.data.build.builder import build_source
    from persianmind.data.build.source import source_job
    from persianmind.recipe import Recipe
    from persianmind.tokenizer import FolderTokenizer

    if fast and not FolderTokenizer(folder / "tokenizer", fast=True).is_fast:
        return {"missing": "gigatoken is not installed"}
    out = folder / f"out-{size}-{fast}"
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "base": "none",
            "sources": {"fa": {"uri": str(folder / f"{size}.jsonl")}},
            "stages": [{"name": "one", "sources": {"fa": 1.0}, "epochs": 1.0}],
            "data": {"seq_len": SEQ_LEN, "fast_tokenizer": fast, "sequences_per_shard": 512},
            "quality": QUALITY,
        }
    )
    start = time.process_time()
    manifest = build_source(
        source_job(recipe, recipe.packing("fa"), tokenizer=folder / "tokenizer", out=out, heldout=folder)
    )
    seconds = time.process_time() - start
    return {
        "tokens_per_s": manifest.tokens / seconds,
        "fill": manifest.fill,
        "tokens_lost": manifest.tokens_lost,
        "documents_cut": manifest.documents_cut,
        "documents": manifest.documents,
        "peak_mib": peak_mib(),
    }


def ours(folder: Path, size: int) -> dict[str, Any]:
    """The whole line to packed, hashed shards with the ordinary tokenizer."""
    return _ours(folder, size, fast=False)


def ours_again(folder: Path, size: int) -> dict[str, Any]:
    """A build for its memory, from the start."""
    shutil.rmtree(folder / f"out-{size}-False", ignore_errors=True)
    return _ours(folder, size, fast=False)


def ours_fast(folder: Path, size: int) -> dict[str, Any]:
    """The same with gigatoken."""
    return _ours(folder, size, fast=True)


def _import_hf() -> None:
    """The seconds that imports take are nobody's speed: called before every clock of HF and TRL."""
    import datasets  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401


def _tokenised(folder: Path, size: int, cache: str) -> Any:
    """`datasets.map` over the same file, end-of-text token added, as its examples do."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    eos = tokenizer.eos_token_id
    sequences = load_dataset("json", data_files=str(folder / f"{size}.jsonl"), split="train", cache_dir=cache)

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch["text"], add_special_tokens=False)["input_ids"]
        return {"input_ids": [[*one, eos] for one in ids]}

    return sequences.map(tokenise, batched=True, remove_columns=["text"])


def hf_group_texts(folder: Path, size: int) -> dict[str, Any]:
    """Tokenise, join a thousand documents, cut into sequences; the rest of each thousand is dropped."""
    _import_hf()
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        tokenised = _tokenised(folder, size, cache)
        documents_in = [len(ids) for ids in tokenised["input_ids"]]

        def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
            joined = [token for ids in batch["input_ids"] for token in ids]
            whole = len(joined) // SEQ_LEN * SEQ_LEN
            return {"input_ids": [joined[i : i + SEQ_LEN] for i in range(0, whole, SEQ_LEN)]}

        packed = tokenised.map(group, batched=True)
        seconds = time.process_time() - start
        tokens = sum(documents_in)
        cut = position = 0
        for i, length in enumerate(documents_in):
            if i % 1000 == 0:
                position = 0
            cut += position // SEQ_LEN != (position + length - 1) // SEQ_LEN
            position += length
        return {
            "tokens_per_s": tokens / seconds,
            "fill": 1.0,
            "tokens_lost": tokens - len(packed) * SEQ_LEN,
            "documents_cut": cut,
            "documents": len(documents_in),
            "peak_mib": peak_mib(),
        }


def _trl(folder: Path, size: int, strategy: str) -> dict[str, Any]:
    try:
        from trl import pack_dataset
    except ImportError:
        return {"missing": "trl is not installed"}
    _import_hf()
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        tokenised = _tokenised(folder, size, cache)
        packed = pack_dataset(tokenised, seq_length=SEQ_LEN, strategy=strategy)
        seconds = time.process_time() - start
        lengths = [len(ids) for ids in tokenised["input_ids"]]
        kept = sum(len(ids) for ids in packed["input_ids"])
        if strategy == "wrapped":  # sequences of the joined stream: whoever spans a border is cut
            cut = sum(
                (end - length) // SEQ_LEN != (end - 1) // SEQ_LEN
                for end, length in zip(accumulate(lengths), lengths, strict=True)
            )
        else:
            cut = sum(length > SEQ_LEN for length in lengths)
        return {
            "tokens_per_s": sum(lengths) / seconds,
            "fill": kept / (len(packed) * SEQ_LEN),
            "tokens_lost": sum(lengths) - kept,
            "documents_cut": cut,
            "documents": len(lengths),
            "peak_mib": peak_mib(),
        }


def trl_bfd(folder: Path, size: int) -> dict[str, Any]:
    """TRL's default: best-fit decreasing."""
    return _trl(folder, size, "bfd")


def trl_wrapped(folder: Path, size: int) -> dict[str, Any]:
    """TRL's other strategy: join and cut."""
    return _trl(folder, size, "wrapped")

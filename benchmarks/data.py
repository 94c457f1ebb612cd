"""The data line against the common ways: speed, fill, tokens lost, resume, start-up, memory.

    python benchmarks/data.py [--quick] [--json FILE] [--text URI ...]

Documents of web-like length (log-normal, median about 330 tokens) are made of the lines of --text: all ways
see the same JSON-lines file and the same tokenizer. Speed is tokens a second of processor time (one core),
which a busy machine does not change; resume and start-up are wall time, the best of three fresh processes.

HF is `datasets.map` with the group_texts of its run_clm example; TRL is `trl.pack_dataset` (left out where
it is not installed). Ours also normalises, judges, drops duplicates, hashes and fsyncs; the others do not.
HF resumes by skipping: a map-style dataset skips numbers, an iterable one has to read what it skips.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

ROW_LENGTH = 2048
RESUMES = {"ours": "resume_ours", "hf_map_style": "resume_hf", "hf_iterable": "resume_hf_iterable"}
QUALITY = {"max_symbol_share": 1.0}  # lines of code among the text are wanted here


def main() -> None:
    """Runs every part in a process of its own and prints one table a part."""
    options = _options()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if options.part:
        print(json.dumps(PARTS[options.part](Path(options.folder), options.argument)))
        return
    million = 1_000_000
    sizes = (million // 2, 2 * million) if options.quick else (2 * million, 8 * million)
    consumed = [million * k // (16 if options.quick else 1) for k in (1, 2, 4, 8, 16)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in sizes:
            make_corpus(folder / f"{size}.jsonl", size, options.text)
        make_tokenizer(folder / "tokenizer", folder / f"{sizes[0]}.jsonl")
        run = _runner(folder)
        result: dict[str, Any] = {"row_length": ROW_LENGTH, "quick": options.quick}
        result["throughput"] = {
            part: run(part, sizes[0])
            for part in ("ours", "ours_fast", "hf_group_texts", "trl_bfd", "trl_wrapped")
        }
        run("make_packed", max(consumed))
        result["resume_s"] = {
            "consumed_tokens": consumed,
            **{
                name: [min(run(part, tokens)["seconds"] for _ in range(3)) for tokens in consumed]
                for name, part in RESUMES.items()
            },
        }
        result["sizes"] = {str(size): _sizes(run, size) for size in sizes}
    show(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="an eighth of the text or less")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--text", nargs="+", default=["package://hafez"], help="sources of the lines")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--argument", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _runner(folder: Path) -> Callable[[str, int], dict[str, Any]]:
    """Runs one part in a fresh process, so that memory and caches are its own."""

    def run(part: str, argument: int) -> dict[str, Any]:
        command = [
            sys.executable,
            __file__,
            "--part",
            part,
            "--folder",
            str(folder),
            "--argument",
            str(argument),
        ]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return value

    return run


def _sizes(run: Callable[[str, int], dict[str, Any]], size: int) -> dict[str, Any]:
    built = run("ours_again", size)
    best = min((run("first_batch", size) for _ in range(3)), key=lambda one: float(one["first_batch_s"]))
    return {"build_peak_mib": built["peak_mib"], **best}


# --- the text and the tokenizer --------------------------------------------------------------------------
def make_corpus(path: Path, tokens: int, uris: list[str]) -> None:
    """Documents of lines of the text, of log-normal length; about 4.4 characters a token."""
    from persianmind.recipe import Source
    from persianmind.text.stream import stream_rows

    lines: list[str] = []
    for row in stream_rows("text", Source(uri=uris)):
        lines += [line for line in row.fields["text"].split("\n") if len(line) > 20]
    chance = random.Random(0)
    written = 0
    with path.open("w", encoding="utf-8") as handle:
        while written < 4.4 * tokens:
            characters = min(220_000, 4.4 * chance.lognormvariate(5.8, 1.1))
            document: list[str] = []
            while sum(map(len, document)) < characters:
                document.append(chance.choice(lines))
            text = "\n".join(document)
            written += len(text)
            handle.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def make_tokenizer(folder: Path, corpus: Path) -> None:
    """A byte-level BPE of 16,000 tokens over the text, end-of-text token included."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(corpus), trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')


def _texts(corpus: Path) -> Iterator[str]:
    with corpus.open(encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)["text"]


# --- throughput, fill and losses -------------------------------------------------------------------------
def _ours(folder: Path, size: int, *, fast: bool) -> dict[str, Any]:
    from persianmind.data.build import build_source
    from persianmind.data.tokenise import FolderTokenizer
    from persianmind.recipe import Recipe

    if fast and not FolderTokenizer(folder / "tokenizer", fast=True).is_fast:
        return {"missing": "gigatoken is not installed"}
    out = folder / f"out-{size}-{fast}"
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "base": "none",
            "sources": {"fa": {"uri": str(folder / f"{size}.jsonl")}},
            "stages": [{"name": "one", "sources": {"fa": 1.0}, "epochs": 1.0}],
            "data": {"row_length": ROW_LENGTH, "fast_tokenizer": fast, "shard_rows": 512},
            "quality": QUALITY,
        }
    )
    start = time.process_time()
    manifest = build_source(recipe, "fa", folder / "tokenizer", out)
    seconds = time.process_time() - start
    return {
        "tokens_per_s": manifest.tokens / seconds,
        "fill": manifest.fill,
        "tokens_lost": manifest.tokens_lost,
        "documents_cut": manifest.documents_cut,
        "documents": manifest.documents,
        "peak_mib": _peak_mib(),
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


def _tokenised(folder: Path, size: int, cache: str) -> Any:
    """`datasets.map` over the same file, end-of-text token added, as its examples do."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    eos = tokenizer.eos_token_id
    rows = load_dataset("json", data_files=str(folder / f"{size}.jsonl"), split="train", cache_dir=cache)

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch["text"], add_special_tokens=False)["input_ids"]
        return {"input_ids": [[*one, eos] for one in ids]}

    return rows.map(tokenise, batched=True, remove_columns=["text"])


def hf_group_texts(folder: Path, size: int) -> dict[str, Any]:
    """Tokenise, join a thousand documents, cut into rows; the rest of each thousand is dropped."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        tokenised = _tokenised(folder, size, cache)
        documents_in = [len(ids) for ids in tokenised["input_ids"]]

        def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
            joined = [token for ids in batch["input_ids"] for token in ids]
            whole = len(joined) // ROW_LENGTH * ROW_LENGTH
            return {"input_ids": [joined[i : i + ROW_LENGTH] for i in range(0, whole, ROW_LENGTH)]}

        packed = tokenised.map(group, batched=True)
        seconds = time.process_time() - start
        tokens = sum(documents_in)
        cut = position = 0
        for i, length in enumerate(documents_in):
            if i % 1000 == 0:
                position = 0
            cut += position // ROW_LENGTH != (position + length - 1) // ROW_LENGTH
            position += length
        return {
            "tokens_per_s": tokens / seconds,
            "fill": 1.0,
            "tokens_lost": tokens - len(packed) * ROW_LENGTH,
            "documents_cut": cut,
            "documents": len(documents_in),
            "peak_mib": _peak_mib(),
        }


def _trl(folder: Path, size: int, strategy: str) -> dict[str, Any]:
    try:
        from trl import pack_dataset
    except ImportError:
        return {"missing": "trl is not installed"}
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        tokenised = _tokenised(folder, size, cache)
        packed = pack_dataset(tokenised, seq_length=ROW_LENGTH, strategy=strategy)
        seconds = time.process_time() - start
        lengths = [len(ids) for ids in tokenised["input_ids"]]
        kept = sum(len(ids) for ids in packed["input_ids"])
        if strategy == "wrapped":  # rows of the joined stream: whoever spans a border is cut
            cut = sum(
                (end - length) // ROW_LENGTH != (end - 1) // ROW_LENGTH
                for end, length in zip(accumulate(lengths), lengths, strict=True)
            )
        else:
            cut = sum(length > ROW_LENGTH for length in lengths)
        return {
            "tokens_per_s": sum(lengths) / seconds,
            "fill": kept / (len(packed) * ROW_LENGTH),
            "tokens_lost": sum(lengths) - kept,
            "documents_cut": cut,
            "documents": len(lengths),
            "peak_mib": _peak_mib(),
        }


def trl_bfd(folder: Path, size: int) -> dict[str, Any]:
    """TRL's default: best-fit decreasing."""
    return _trl(folder, size, "bfd")


def trl_wrapped(folder: Path, size: int) -> dict[str, Any]:
    """TRL's other strategy: join and cut."""
    return _trl(folder, size, "wrapped")


# --- resume, start-up, memory ----------------------------------------------------------------------------
def make_packed(folder: Path, tokens: int) -> dict[str, Any]:
    """Packed rows of random tokens for the resume measurements: ours, and the same as an Arrow dataset."""
    import numpy as np
    from datasets import Dataset

    from persianmind.data.build import build_source
    from persianmind.data.dataset import TokenDataset
    from persianmind.recipe import Recipe

    rows = tokens // ROW_LENGTH + 64
    chance = np.random.default_rng(0)
    corpus = folder / "packed.jsonl"
    with corpus.open("w") as handle:  # digits and dashes; cut into rows as they come
        for i in range(rows):
            numbers = chance.integers(0, 10, ROW_LENGTH - 16).tolist()
            handle.write(json.dumps({"text": f"{i} " + "-".join(map(str, numbers))}) + "\n")
    recipe = Recipe.model_validate(
        {
            "name": "packed",
            "base": "none",
            "sources": {"fa": {"uri": str(corpus)}},
            "stages": [{"name": "one", "sources": {"fa": 1.0}, "epochs": 1.0}],
            "data": {"row_length": ROW_LENGTH, "shard_rows": 512},
            "quality": {"enabled": False},
        }
    )
    build_source(recipe, "fa", folder / "tokenizer", folder / "packed")
    dataset = TokenDataset(folder / "packed")
    generator = ({"input_ids": dataset.row(i).input_ids} for i in range(len(dataset)))
    Dataset.from_list(list(generator)).save_to_disk(folder / "packed-hf")
    return {"rows": len(dataset)}


def resume_ours(folder: Path, tokens: int) -> dict[str, Any]:
    """From nothing (imports done) to the first batch after `tokens` consumed tokens."""
    from persianmind.data.batches import StageData
    from persianmind.data.dataset import TokenDataset
    from persianmind.data.order import Mixture

    start = time.perf_counter()
    dataset = TokenDataset(folder / "packed")
    data = StageData(Mixture({"fa": len(dataset)}, {"fa": 1.0}, 100, 0), {"fa": dataset})
    first = tokens // ROW_LENGTH
    batch = data.batch(range(first, first + 8))
    seconds = time.perf_counter() - start
    assert batch["input_ids"].shape == (8, ROW_LENGTH)
    return {"seconds": seconds}


def resume_hf(folder: Path, tokens: int) -> dict[str, Any]:
    """What the HF Trainer does with a map-style dataset: a shuffled DataLoader, its first batches skipped."""
    return _resume_hf(folder, tokens, iterable=False)


def resume_hf_iterable(folder: Path, tokens: int) -> dict[str, Any]:
    """The same with an iterable dataset, which is what streaming gives: rows are read and thrown away."""
    return _resume_hf(folder, tokens, iterable=True)


def _resume_hf(folder: Path, tokens: int, *, iterable: bool) -> dict[str, Any]:
    from accelerate import skip_first_batches
    from datasets import load_from_disk
    from torch.utils.data import DataLoader

    start = time.perf_counter()
    rows = load_from_disk(str(folder / "packed-hf")).with_format("torch")
    if iterable:
        rows = rows.to_iterable_dataset()
    loader = DataLoader(rows, batch_size=8, shuffle=not iterable)
    loader = skip_first_batches(loader, tokens // ROW_LENGTH // 8)
    batch = next(iter(loader))
    seconds = time.perf_counter() - start
    assert batch["input_ids"].shape == (8, ROW_LENGTH)
    return {"seconds": seconds}


def first_batch(folder: Path, size: int) -> dict[str, Any]:
    """From a finished build to the first batch, and the peak memory of reading 200 batches."""
    from persianmind.data.batches import StageData
    from persianmind.data.dataset import TokenDataset
    from persianmind.data.order import Mixture

    start = time.perf_counter()
    dataset = TokenDataset(folder / f"out-{size}-False")
    data = StageData(Mixture({"fa": len(dataset)}, {"fa": 1.0}, 100, 0), {"fa": dataset})
    data.batch(range(8))
    seconds = time.perf_counter() - start
    for first in range(0, 1600, 8):
        data.batch(range(first, first + 8))
    return {"first_batch_s": seconds, "read_peak_mib": _peak_mib()}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        ours,
        ours_again,
        ours_fast,
        hf_group_texts,
        trl_bfd,
        trl_wrapped,
        make_packed,
        resume_ours,
        resume_hf,
        resume_hf_iterable,
        first_batch,
    )
}


def show(result: dict[str, Any]) -> None:
    """The figures as tables; ratios are to HF in the same run."""
    base = result["throughput"]["hf_group_texts"]["tokens_per_s"]
    print(f"{'way':16} {'tokens/s':>10} {'x HF':>6} {'fill':>7} {'lost':>9} {'cut':>12} {'peak MiB':>9}")
    for name, one in result["throughput"].items():
        if "missing" in one:
            print(f"{name:16} {one['missing']}")
            continue
        cut = f"{one['documents_cut']}/{one['documents']}"
        print(
            f"{name:16} {one['tokens_per_s']:10,.0f} {one['tokens_per_s'] / base:6.2f} {one['fill']:7.2%} "
            f"{one['tokens_lost']:9,} {cut:>12} {one['peak_mib']:9.0f}"
        )
    resumed = result["resume_s"]
    print("\nresume after tokens  " + "".join(f"{tokens:>12,}" for tokens in resumed["consumed_tokens"]))
    for name in RESUMES:
        print(f"{name:20} " + "".join(f"{1000 * seconds:10.1f}ms" for seconds in resumed[name]))
    print()
    for size, one in result["sizes"].items():
        print(
            f"{int(size):>12,} tokens: first batch {1000 * one['first_batch_s']:.1f} ms, build peak "
            f"{one['build_peak_mib']:.0f} MiB, reading peak {one['read_peak_mib']:.0f} MiB"
        )


if __name__ == "__main__":
    main()

"""The data line against the common ways: speed, fill, tokens lost, resume, start-up, memory.

    python benchmarks/data.py [--quick] [--json FILE] [--text URI ...] [--before CHECKOUT]

Documents of web-like length (log-normal, median about 330 tokens) are made of the lines of --text: all ways
see the same JSON-lines file and the same tokenizer. Speed is tokens per second of processor time (one core),
which a busy machine does not change; resume and start-up are wall time, the best of three fresh processes.

HF is `datasets.map` with the group_texts of its run_clm example; TRL is `trl.pack_dataset` (left out where
it is not installed). Ours also normalises, judges, drops duplicates, hashes and fsyncs; the others do not.
--before: another checkout of this repository; its data line and this one's in turn, and the ratio of speeds.

HF resumes by skipping: a map-style dataset skips numbers, an iterable one has to read what it skips.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.lib import data_parts, data_resume  # noqa: E402
from benchmarks.lib.data_parts import SEQ_LEN  # noqa: E402

ROUNDS = 5
RESUMES = {"ours": "resume_ours", "hf_map_style": "resume_hf", "hf_iterable": "resume_hf_iterable"}
PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        data_parts.ours,
        data_parts.ours_again,
        data_parts.ours_fast,
        data_parts.hf_group_texts,
        data_parts.trl_bfd,
        data_parts.trl_wrapped,
        data_resume.make_packed,
        data_resume.resume_ours,
        data_resume.resume_hf,
        data_resume.resume_hf_iterable,
        data_resume.first_batch,
    )
}


def main() -> None:
    """Runs every part in a process of its own and prints one table per part."""
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
        if options.before:
            show_before(run, _runner(folder, Path(options.before) / "benchmarks" / "data.py"), sizes[0])
            return
        result: dict[str, Any] = {"seq_len": SEQ_LEN, "quick": options.quick}
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
    parser.add_argument("--before", metavar="CHECKOUT", help="compare with the data line of another checkout")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--argument", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def show_before(
    now: Callable[[str, int], dict[str, Any]], before: Callable[[str, int], dict[str, Any]], size: int
) -> None:
    """The ratio of speeds of this checkout and another, run in turn; and both to HF's, run once."""
    rounds = [
        [float(run("ours_again", size)["tokens_per_s"]) for run in (before, now)] for _ in range(ROUNDS)
    ]
    hf = float(now("hf_group_texts", size)["tokens_per_s"])
    for name, values in zip(("before", "now"), zip(*rounds, strict=True), strict=True):
        speed = statistics.median(values)
        print(f"{name:8} {speed:10,.0f} tokens/s, {speed / hf:.2f} x HF")
    ratios = sorted(new / old for old, new in rounds)
    print(f"now / before: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


def _runner(folder: Path, script: Path = Path(__file__)) -> Callable[[str, int], dict[str, Any]]:
    """Runs one part in a fresh process, so that memory and caches are its own."""

    def run(part: str, argument: int) -> dict[str, Any]:
        command = [
            sys.executable,
            str(script),
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
    """Documents of lines of the text, of log-normal length; about 4.4 characters per token."""
    from persianmind.recipe import Source
    from persianmind.text.stream import stream_records

    lines: list[str] = []
    for record in stream_records("text", Source(uri=uris)):
        lines += [line for line in record.fields["text"].split("\n") if len(line) > 20]
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

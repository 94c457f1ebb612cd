"""The training engine against what people use: speed, memory, traffic, checkpoint size, loss.

    python benchmarks/train.py [--quick] [--profile] [--site DIR] [--json FILE]

Two Llamas, 2,048 x 2 layers (sequences of 1,024) and 512 x 6 (of 256), 4,190 + 1,000 ids, the same documents
of web-like length, LoRA rank 8 on all projections plus new embeddings, AdamW at one rate, fp32 on the CPU;
rounds interleaved, medians. Useful tokens per second leave out the first step. HF and TRL train whole tables
(modules_to_save), as their users do. `--quick` measures hidden size 2,048 alone, one round of the programs.

    levers    one rank of two threads at 2,048, a step of each in turn in one process: ours with recompute
              off, selective and full, with an int8 base, and the bare loop: peft's LoRA, an ordinary
              cross-entropy, torch's AdamW
    ours      two ranks of one thread under ZeRO-2; -selective, -full, -int8: so much recompute, or that base
    hf        transformers Trainer + DeepSpeed ZeRO-2 + peft, pad-to-longest collator
    trl       SFTTrainer + DeepSpeed ZeRO-2 + peft, packing bfd_split, its own default of recompute
    bare      one rank: the bare loop; against ours-1
    memory    one micro-batch of 4,096 tokens at 41,510 ids: peak memory above that of the loaded model
    attention 2,048 tokens packed, against the dense mask of transformers: seconds, bytes above what both hold
    traffic   bytes that a rank sends per step at accumulation 16, against DeepSpeed used the ordinary way

A side whose package is missing is null with the reason. Packages that this Python does not have are found
through PYTHONPATH or --site (pip install --target DIR --no-deps trl).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.lib import train_figures  # noqa: E402
from benchmarks.lib.train_process import Runner, processor  # noqa: E402

LARGE_SIDES = ("ours-selective", "ours-full", "ours-int8", "trl")
SMALL_SIDES = ("ours", "ours-selective", "ours-full", "hf", "trl", "bare", "ours-1")
EXTRA = ("memory-ours", "memory-hf", "traffic", "attention")
LARGE_TOKENS, SMALL_TOKENS = 10_000, 8_000
ROUNDS, QUICK_STEPS, QUICK_ROUNDS, QUICK_TOKENS = 5, 5, 1, 8_000


def main() -> None:
    """Runs every part in processes of its own and prints the table."""
    options = _options()
    if options.part:
        from benchmarks.lib import train_parts

        train_parts.run(options.part, Path(options.folder), options.amount)
        return
    with tempfile.TemporaryDirectory() as name:
        runner = Runner(Path(__file__), Path(name), options.site)
        result: dict[str, Any] = {"quick": options.quick, "cpu": processor()}
        for _ in _measure(runner, result, options.quick, options.profile):
            _judge(result)
            if options.json:
                Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    train_figures.show(result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="hidden size 2,048 alone, one round")
    parser.add_argument("--profile", action="store_true", help="also where the time of a step goes")
    parser.add_argument("--site", metavar="DIR", action="append", default=[], help="more packages, e.g. trl")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here, after every round")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--amount", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(runner: Runner, result: dict[str, Any], quick: bool, with_profile: bool) -> Any:
    """Fills the result; yields whenever there is something new to judge."""
    runner.part("2048x2.prepare" if quick else "2048x2+512x6.prepare", 0)
    result["levers"] = runner.part("2048x2.levers", QUICK_STEPS if quick else ROUNDS)
    result["runs_2048x2"] = {side: [] for side in LARGE_SIDES}
    if with_profile:
        result["profile"] = runner.part("2048x2.profile", 0)
    if quick:
        for _ in range(QUICK_ROUNDS):
            _round(runner, "2048x2", LARGE_SIDES, result["runs_2048x2"], QUICK_TOKENS)
        yield
        return
    result["runs_512x6"] = {side: [] for side in SMALL_SIDES}
    result["extra"] = {part: runner.part(f"512x6.{part}", 0) for part in EXTRA}
    for number in range(ROUNDS):
        _round(runner, "2048x2", LARGE_SIDES[:: 1 - 2 * (number % 2)], result["runs_2048x2"], LARGE_TOKENS)
        _round(runner, "512x6", SMALL_SIDES[:: 1 - 2 * (number % 2)], result["runs_512x6"], SMALL_TOKENS)
        yield


def _round(
    runner: Runner, size: str, sides: Sequence[str], runs: dict[str, list[dict[str, Any]]], tokens: int
) -> None:
    for side in sides:
        if runs[side] and "missing" in runs[side][0]:
            continue
        runs[side].append(runner.part(f"{size}.{side}", tokens))
        print(f"{size} {side}: {json.dumps(runs[side][-1])}", file=sys.stderr, flush=True)


def _judge(result: dict[str, Any]) -> None:
    """Ratios, reasons and verdicts of what is measured so far."""
    ratios = train_figures.large_ratios(result["levers"], result["runs_2048x2"])
    if result["quick"]:
        ratios |= dict.fromkeys(train_figures.SMALL_KEYS)
    else:
        ratios |= train_figures.small_ratios(result["runs_512x6"], result["extra"])
    result["ratios"] = ratios
    result["not_measured"] = train_figures.reasons(result)
    has_int8 = bool(result["cpu"]["int8_instructions"])
    result["verdicts"] = {
        name: aim.verdict(ratios.get(name), has_int8) for name, aim in train_figures.AIMS.items()
    }
    result["aims"] = {name: str(aim) for name, aim in train_figures.AIMS.items()}


if __name__ == "__main__":
    main()

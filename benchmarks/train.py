"""The training engine against what people use: speed, memory, traffic, checkpoint size, loss.

    python benchmarks/train.py [--quick] [--json FILE]

All sides: the same Llama (d 512, 6 layers, 4,190 + 1,000 ids), the same documents of web-like length, LoRA
rank 8 plus new embeddings, AdamW at one rate, fp32 on CPU, two ranks under ZeRO-2 (one thread each), rounds
interleaved, medians. Useful tokens per second leave out the first step; the loss is that of the same held-out
sequences after as many useful tokens. HF and TRL train whole tables (modules_to_save), as their users do.

    ours      this project's engine, packed sequences
    hf        transformers Trainer + DeepSpeed ZeRO-2 + peft, pad-to-longest collator
    trl       SFTTrainer + DeepSpeed ZeRO-2 + peft, packing bfd_split (left out where trl is not installed)
    bare      one rank: a plain torch loop over the same modules, an ordinary cross-entropy; against ours-1
    memory    one micro-batch of 4,096 tokens at 41,510 ids: peak memory above that of the loaded model
    attention 2,048 tokens packed, against the dense mask of transformers: seconds, bytes above what both hold
    traffic   bytes that a rank sends per step at accumulation 16, against DeepSpeed used the ordinary way
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

TWO_RANKS = ("ours", "hf", "trl", "traffic")
EXTRA = ("memory-ours", "memory-hf", "traffic", "attention")
ROUNDS = ("ours", "hf", "trl", "bare", "ours-1")
# memory_over_trl: of a run; memory_over_hf: at 41,510 ids; traffic: at accumulation 16.
AIMS = {
    "ours_over_hf": "2.5 or more",
    "ours_over_trl": "1.1 or more",
    "ours_over_bare": "1.05 or less",
    "memory_over_trl": "0.7 or less",
    "memory_over_hf": "0.5 or less",
    "traffic_over_default": "1/12 = 0.083",
    "attention_time": "0.5 or less",
    "attention_bytes": "0.2 or less",
    "checkpoint_over_hf": "0.3 or less",
}


def main() -> None:
    """Runs every part in processes of its own and prints the table."""
    options = _options()
    if options.part:
        from benchmarks.lib import train_parts

        train_parts.run(options.part, Path(options.folder), options.useful_tokens)
        return
    useful = 4_000 if options.quick else 8_000
    rounds = 1 if options.quick else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _part("prepare", folder, useful)
        runs: dict[str, list[dict[str, Any]]] = {part: [] for part in ROUNDS}
        for number in range(rounds):
            for part in ROUNDS if number % 2 == 0 else reversed(ROUNDS):
                runs[part].append(_part(part, folder, useful))
                print(f"round {number + 1} {part}: {json.dumps(runs[part][-1])}", file=sys.stderr, flush=True)
        extra = {part: _part(part, folder, useful) for part in EXTRA}
    result = {"quick": options.quick, "rounds": rounds, "runs": runs, **extra}
    result["ratios"] = ratios(runs, extra)
    show(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round, half of the tokens")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--useful-tokens", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    return parser.parse_args()


def _part(part: str, folder: Path, useful_tokens: int) -> dict[str, Any]:
    """One part in fresh processes; {"missing": why} where it cannot run."""
    out = folder / f"{part}.json"
    out.unlink(missing_ok=True)
    script = [str(Path(__file__)), "--part", part, "--folder", str(folder)]
    command = [sys.executable, *script, "--useful-tokens", str(useful_tokens)]
    if part in TWO_RANKS:
        launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_accelerators", "2"]
        command = [*launcher, "--master_port", str(_free_port()), *command[1:]]
    threads = "1" if part in TWO_RANKS else "2"
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not out.is_file():
        raise SystemExit(f"{part} failed ({done.returncode}):\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return figures


def ratios(runs: dict[str, list[dict[str, Any]]], extra: dict[str, Any]) -> dict[str, float | None]:
    """By name; speeds: higher is better; step time, memory and bytes: lower is better; None: not measured."""

    def median(part: str, key: str) -> float | None:
        values = [run[key] for run in runs[part] if key in run]
        return statistics.median(values) if values else None

    def over(a: float | None, b: float | None) -> float | None:
        return None if not a or not b else a / b

    speed, memory = "useful_tokens_per_s", "peak_bytes"
    attention = extra["attention"]
    above, big, other = "above_imports_bytes", extra["memory-ours"], extra["memory-hf"]
    return {
        "ours_over_hf": over(median("ours", speed), median("hf", speed)),
        "ours_over_trl": over(median("ours", speed), median("trl", speed)),
        "ours_over_bare": over(median("ours-1", "step_s"), median("bare", "step_s")),
        "memory_over_trl": over(median("ours", memory), median("trl", memory)),
        "memory_over_trl_above_imports": over(median("ours", above), median("trl", above)),
        "memory_over_hf": over(big["peak_bytes"], other["peak_bytes"]),
        "memory_over_hf_above_model": over(big["above_model_bytes"], other["above_model_bytes"]),
        "attention_time": over(attention["seconds"]["packed"], attention["seconds"]["dense"]),
        "attention_bytes": over(attention["bytes"]["packed"], attention["bytes"]["dense"]),
        "traffic_over_default": over(extra["traffic"]["ours"], extra["traffic"]["default"]),
        "checkpoint_over_hf": over(median("ours", "checkpoint_bytes"), median("hf", "checkpoint_bytes")),
        "loss_minus_hf": (median("ours", "loss") or 0) - (median("hf", "loss") or 0),
    }


def show(result: dict[str, Any]) -> None:
    """The medians, then the ratios."""
    keys = (
        "useful_tokens_per_s",
        "step_s",
        "peak_bytes",
        "above_imports_bytes",
        "checkpoint_bytes",
        "loss",
        "fill",
    )
    print(f"{'part':<8}" + "".join(f"{key:>22}" for key in keys))
    for part, runs in result["runs"].items():
        cells = []
        for key in keys:
            values = [run[key] for run in runs if key in run]
            cells.append(f"{statistics.median(values):>22,.4g}" if values else f"{'-':>22}")
        print(f"{part:<8}" + "".join(cells))
    for name, value in result["ratios"].items():
        aim = f" (aim: {AIMS[name]})" if name in AIMS else ""
        print(f"{name}: " + ("not measured" if value is None else f"{value:.3f}") + aim)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

"""Which shipped recipe fits which GPU, from the planner: the table in docs/gpus.md.

    python benchmarks/gpu_table.py [--quick] [--write] [--json FILE]

Each cell is one call of `persianmind plan RECIPE --gpu GPU --ranks N --json`: no GPU, no weights, no network.
`--write` puts the table between the two marks in docs/gpus.md; without it, it is only printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gpus.md"
BEGIN, END = "<!-- gpu_table.py begins -->", "<!-- gpu_table.py ends -->"
# By memory, smallest first; the name stands for all GPUs with as much.
GPUS = ("RTX 3070", "RTX 3060", "RTX 4060 Ti 16 GB", "RTX 3090", "RTX 5090", "RTX A6000")
RECIPES = {  # name -> ranks
    "gemma-3-1b": 1,
    "qwen2.5-1.5b-1x8": 1,
    "persianmind-7b-1x24": 1,
    "llama-3.1-8b-nf4-1x24": 1,
    "persianmind-7b": 4,
    "persianmind-7b-all-embeddings": 4,
    "llama-3.1-8b": 4,
    "qwen3-8b": 4,
}


def main() -> None:
    """Plans every pair and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one recipe on two GPUs")
    parser.add_argument("--write", action="store_true", help="also write the table into docs/gpus.md")
    parser.add_argument("--json", metavar="FILE", help="also write the plans' figures here")
    options = parser.parse_args()
    recipes, gpus = (["gemma-3-1b"], GPUS[:2]) if options.quick else ([*RECIPES], GPUS)
    plans = {name: {gpu: plan(name, gpu, RECIPES[name]) for gpu in gpus} for name in recipes}
    text = table(plans, gpus)
    print(text)
    if options.write:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    if options.json:
        Path(options.json).write_text(json.dumps(plans, indent=1), encoding="utf-8")


def plan(recipe: str, gpu: str, ranks: int) -> dict[str, Any]:
    """What the command says of this recipe on GPUs of this kind."""
    arguments = ["plan", recipe, "--gpu", gpu, "--ranks", str(ranks), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from persianmind.cli import main; main()", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"persianmind {' '.join(arguments)}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {key: found[key] for key in ("peak_bytes", "fits", "headroom_bytes", "forecast")}


def table(plans: dict[str, dict[str, dict[str, Any]]], gpus: Sequence[str]) -> str:
    """Markdown: a row for each recipe, a column for each GPU; the peak where most is recomputed."""
    lines = [
        f"| recipe, number of GPUs | least peak | {' | '.join(gpus)} |",
        f"| --- | --- |{' --- |' * len(gpus)}",
    ]
    for name, by_gpu in plans.items():
        peak = min(one["peak_bytes"] for one in by_gpu.values())
        cells = [cell(by_gpu[gpu]) for gpu in gpus]
        lines.append(f"| `{name}`, {RECIPES[name]} | {peak / 1e9:.1f} GB | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(found: dict[str, Any]) -> str:
    """Whether it fits, with what to spare and for how long; else what is missing."""
    spare = found["headroom_bytes"] / 1e9
    if not found["fits"]:
        return f"no: {-spare:.1f} GB short"
    return f"{spare:.1f} GB to spare, {duration(found['forecast']['hours'])}"


def duration(hours: float) -> str:
    """Hours, or days from two on."""
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def with_table(page: str, text: str) -> str:
    """The page with the table between its marks."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{PAGE} has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


if __name__ == "__main__":
    main()

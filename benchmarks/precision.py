"""CPU seconds of a forward and backward pass of the demo's model in fp32 and in bf16, one thread.

    python benchmarks/precision.py [--quick] [--json FILE]

A ratio of two timings of the same run: medians of the repeats, processor time, so that other programs on the
machine matter less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from persianmind.engine.registry import backend


def measure(precision: str, tokens: int, repeats: int) -> float:
    """Median processor seconds of loss and gradient over one packed sequence of `tokens`."""
    import torch

    from persianmind.model.adapted import build_adapted
    from persianmind.model.bases import resolve_base
    from persianmind.recipe.loading import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe("demo", [f"train.precision={precision}", "train.gradient_checkpointing=full"])
    model = build_adapted(resolve_base(recipe.base), recipe, [[5, 6]] * recipe.vocab.new_tokens, 49_152)
    model.train()
    ids = torch.randint(0, 49_152, (1, tokens), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(tokens).unsqueeze(0)
    seconds = []
    for _ in range(repeats + 1):
        started_s = time.process_time()
        model(ids, positions, ids.roll(-1, dims=1)).backward()
        seconds.append(time.process_time() - started_s)
    return statistics.median(seconds[1:])  # the first one warms up


def main() -> None:
    """Measures both precisions and prints or writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="64 tokens, one repeat")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    backend().prepare_environment()
    tokens, repeats = (64, 1) if options.quick else (128, 3)
    figures: dict[str, Any] = {"tokens": tokens, "repeats": repeats}
    for precision in ("fp32", "bf16"):
        figures[f"{precision}_cpu_s"] = measure(precision, tokens, repeats)
    figures["bf16_over_fp32"] = figures["bf16_cpu_s"] / figures["fp32_cpu_s"]
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

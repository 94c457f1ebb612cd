"""A training step with and without torch.compile of its decoder layers, on this CPU: is it worth it?

Llama layers with folded LoRA (rank 8) on every projection, one packed sequence, forward, loss and backward;
both kinds interleaved, medians, also of the process's own CPU seconds (with --threads 1 those say more on a
machine that does other things as well). The first step of a compiled model, which compiles, is timed by
itself with empty caches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="compile-bench-")

import numpy as np
import torch

from persianmind.common.log import print_line
from persianmind.model.adapted import AdaptedModel, adapt
from persianmind.model.compiling import compile_layers
from persianmind.model.documents import model_inputs
from persianmind.recipe.loading import load_recipe

# (hidden size, of the MLP, layers, heads, tokens)
SHAPES = {"2048x2": (2048, 5504, 2, 16, 1024), "512x6": (512, 1376, 6, 8, 1024)}
DOCUMENTS = 4
VOCAB = 1024


def make_model(shape: str, recompute: str) -> AdaptedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inner, layers, heads, tokens = SHAPES[shape]
    torch.manual_seed(0)
    bare = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=tokens, tie_word_embeddings=False,
        )
    )  # fmt: skip
    settings = [
        "train.precision=fp32",
        f"train.gradient_checkpointing={recompute}",
        f"data.seq_len={tokens}",
        "adapter.rank=8",
    ]
    return adapt(bare, load_recipe("tiny", settings), [[1, 2]] * 8, VOCAB).train()


def seconds_of_a_step(model: AdaptedModel, inputs: dict[str, Any]) -> tuple[float, float]:
    """By the clock, and of the CPU."""
    started, cpu = time.perf_counter(), time.process_time()
    model(**inputs).backward()
    seconds = time.perf_counter() - started, time.process_time() - cpu
    for value in model.trained().values():
        value.grad = None
    return seconds


def measure(shape: str, recompute: str, rounds: int) -> dict[str, Any]:
    tokens = SHAPES[shape][-1]
    positions = np.tile(np.arange(tokens // DOCUMENTS), DOCUMENTS)[None]
    ids = np.random.default_rng(0).integers(0, VOCAB, (1, tokens))
    inputs = model_inputs(
        {"input_ids": ids, "position_ids": positions, "labels": np.roll(ids, -1)}, torch.device("cpu")
    )
    eager, compiled = make_model(shape, recompute), make_model(shape, recompute)
    torch.compiler.reset()
    compile_layers(compiled.causal_lm)
    seconds_of_a_step(eager, inputs)
    first = seconds_of_a_step(compiled, inputs)
    times: dict[str, list[tuple[float, float]]] = {"eager": [], "compiled": []}
    for _ in range(rounds):
        times["eager"].append(seconds_of_a_step(eager, inputs))
        times["compiled"].append(seconds_of_a_step(compiled, inputs))
    clock, cpu = (
        {kind: statistics.median(one[which] for one in values) for kind, values in times.items()}
        for which in (0, 1)
    )
    return {
        "shape": shape,
        "recompute": recompute,
        "eager_s": clock["eager"],
        "compiled_s": clock["compiled"],
        "compiled_over_eager": clock["compiled"] / clock["eager"],
        "compiled_over_eager_cpu": cpu["compiled"] / cpu["eager"],
        "first_step_s": first[0],
        "first_step_cpu_s": first[1],
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--recompute", nargs="+", default=["off", "selective", "full"])
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own number")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print_line("shape   recompute  eager s  compiled s  ratio  ratio of CPU s  first step s (CPU s)")
    rows = []
    for shape in given.shapes:
        for recompute in given.recompute:
            row = measure(shape, recompute, given.rounds)
            rows.append(row)
            print_line(
                f"{shape:7} {recompute:10} {row['eager_s']:7.3f} {row['compiled_s']:11.3f}"
                f" {row['compiled_over_eager']:6.3f} {row['compiled_over_eager_cpu']:15.3f}"
                f" {row['first_step_s']:13.1f} ({row['first_step_cpu_s']:.1f})"
            )
    if given.json:
        given.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The demo base whole and in 4 bits: held-out loss before and after some steps, memory of the weights.

    python benchmarks/qlora.py [--quick] [--json FILE]

SmolLM2-135M-Instruct with the demo's vocabulary, adapters of rank 8 and new embeddings, one process,
sequences of 128 tokens. bf16 is trained for a few steps only: processors without bf16 instructions emulate
it slowly. fp32 against nf4 with fp32 matmuls shows the same difference over more steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from persianmind.engine.ranks import Ranks  # noqa: E402
from persianmind.engine.registry import backend  # noqa: E402
from persianmind.recipe.loading import load_recipe  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.lib.demo_text import DemoText

ONE_RANK = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
HANG_TIMEOUT_S = 1800.0
VARIANTS = (("bf16", "none"), ("bf16", "nf4"), ("fp32", "none"), ("fp32", "nf4"))


def main() -> None:
    """Measures the four variants and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1 and 2 steps")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    backend().prepare_environment()
    backend().start(ONE_RANK, HANG_TIMEOUT_S)
    from benchmarks.lib.demo_text import prepare_demo_text

    steps = {"bf16": 1 if options.quick else 2, "fp32": 2 if options.quick else 40}
    with tempfile.TemporaryDirectory() as name:
        text = prepare_demo_text(load_recipe("demo", ["heldout.max_characters=1500"]), Path(name))
        figures = [measure(precision, quantize, steps[precision], text) for precision, quantize in VARIANTS]
    print(
        f"{'base':<14}{'weights MB':>12}{'loss before':>14}{'steps':>8}{'loss after':>14}{'s per step':>12}"
    )
    for one in figures:
        print(
            f"{one['variant']:<14}{one['weight_bytes'] / 1e6:>12.1f}{one['before']:>14.4f}{one['steps']:>8}"
            f"{one['after']:>14.4f}{one['step_s']:>12.2f}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(precision: str, quantize: str, steps: int, text: DemoText) -> dict[str, Any]:
    """Bits per byte before and after `steps`, bytes of all weights as they lie in memory."""
    from benchmarks.lib.demo_text import SEQ_LEN, bits_per_byte
    from persianmind.model.adapted import build_adapted
    from persianmind.vocab.expansion import load_expansion

    recipe = load_recipe(
        "demo",
        [
            f"train.precision={precision}",
            f"train.quantize={quantize}",
            f"data.seq_len={SEQ_LEN}",
            "train.global_batch_size=1",
            "train.gradient_checkpointing=off",
        ],
    )
    expansion = load_expansion(text.vocab)
    model = build_adapted(
        text.base, recipe, [piece.base_ids for piece in expansion.pieces], expansion.base_vocab
    )
    config = backend().resolve_config(ROOT / "ds_configs" / "zero2_qlora.json", recipe, 1)
    engine = backend().open(model, config, ONE_RANK)
    engine.set_rates({"adapters_a": 1e-3, "adapters_b": 1e-3, "embeddings": 4e-3})
    before = bits_per_byte(engine.summed_loss(text.held_out.sequences), text.held_out.n_bytes)
    endless = cycle(text.training.sequences)
    started_s = time.perf_counter()
    for _ in range(steps):
        engine.step([next(endless)])
    step_s = (time.perf_counter() - started_s) / steps
    after = bits_per_byte(engine.summed_loss(text.held_out.sequences), text.held_out.n_bytes)
    size = sum(map(_bytes_of, model.parameters()))
    engine.close()
    name = precision if quantize == "none" else f"{quantize} ({precision})"
    return {
        "variant": name,
        "weight_bytes": size,
        "before": before,
        "after": after,
        "steps": steps,
        "step_s": step_s,
    }


def _bytes_of(parameter: Any) -> int:
    """A weight with the scales that belong to it (nf4: one scale per block of 64, itself quantised)."""
    size = parameter.numel() * parameter.element_size()
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        size += state.absmax.numel() * state.absmax.element_size()
        state = state.state2
    return int(size)


if __name__ == "__main__":
    main()

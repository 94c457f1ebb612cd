"""Four ways to begin the new embeddings, compared by held-out loss before and while training.

    python benchmarks/init_embeddings.py [--quick] [--json FILE]

Base: SmolLM2-135M-Instruct and the demo's vocabulary. Each way trains the same sequences in the same order
with the demo's rates (LoRA rank 8 and the new embeddings, fp32, one process); what differs is
`vocab.initialise` alone.
Figures are bits per byte of the demo's held-out Persian, which do not depend on the tokenizer; the base model
with its own tokenizer is the line to beat.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from persianmind.engine.ranks import Ranks  # noqa: E402
from persianmind.engine.registry import backend  # noqa: E402
from persianmind.recipe import Recipe, Vocab  # noqa: E402
from persianmind.recipe.loading import load_recipe  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.lib.demo_text import DemoText
    from persianmind.engine.base import Engine

METHODS: tuple[str, ...] = get_args(Vocab.model_fields["initialise"].annotation)
SEQ_LEN = 128
HANG_TIMEOUT_S = 1800.0


def main() -> None:
    """Builds vocabulary and sequences once, then trains once per method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 steps instead of 200")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="only these ways")
    options = parser.parse_args()
    backend().prepare_environment()
    ranks = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
    backend().start(ranks, HANG_TIMEOUT_S)
    marks = (0, 10, 20) if options.quick else (0, 50, 100, 200)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), ranks, marks, options.methods)
    print(f"{'':<14}" + "".join(f"{f'step {mark}':>12}" for mark in marks))
    for method, curve in figures["bits_per_byte"].items():
        print(f"{method:<14}" + "".join(f"{value:>12.4f}" for value in curve))
    print(f"the base with its own tokenizer: {figures['base']:.4f}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, ranks: Ranks, marks: tuple[int, ...], methods: Sequence[str]) -> dict[str, Any]:
    """`bits_per_byte`: one number per mark for each method."""
    from benchmarks.lib.demo_text import bits_per_byte, prepare_demo_text

    recipe = _recipe("subword-mean")
    text = prepare_demo_text(recipe, folder)
    figures: dict[str, Any] = {"marks": marks, "bits_per_byte": {}}
    for method in methods:
        curve = list(_curve(_recipe(method), text, ranks, marks))
        figures["bits_per_byte"][method] = curve
        print(f"{method}: {curve}", file=sys.stderr, flush=True)
    engine = _open_engine(recipe, text, ranks)
    own = text.held_out_base
    figures["base"] = bits_per_byte(engine.summed_loss(own.sequences, base_vocab_only=True), own.n_bytes)
    return figures


def _curve(recipe: Recipe, text: DemoText, ranks: Ranks, marks: tuple[int, ...]) -> Iterator[float]:
    from benchmarks.lib.demo_text import bits_per_byte

    engine = _open_engine(recipe, text, ranks)
    train = recipe.train
    adapters, embeddings = train.learning_rate, train.embedding_learning_rate or train.learning_rate
    engine.set_rates({"adapters_a": adapters, "adapters_b": adapters, "embeddings": embeddings})
    endless = cycle(text.training.sequences)
    for step in range(marks[-1] + 1):
        if step in marks:
            yield bits_per_byte(engine.summed_loss(text.held_out.sequences), text.held_out.n_bytes)
        if step < marks[-1]:
            engine.step([next(endless)])
    engine.close()


def _open_engine(recipe: Recipe, text: DemoText, ranks: Ranks) -> Engine:
    from persianmind.model.adapted import build_adapted
    from persianmind.vocab.expansion import load_expansion

    expansion = load_expansion(text.vocab)
    pieces = [piece.base_ids for piece in expansion.pieces]
    model = build_adapted(text.base, recipe, pieces, expansion.base_vocab)
    config = backend().resolve_config(backend().default_config, recipe, ranks.world_size)
    return backend().open(model, config, ranks)


def _recipe(method: str) -> Recipe:
    return load_recipe(
        "demo",
        [
            f"vocab.initialise={method}",
            f"data.seq_len={SEQ_LEN}",
            "train.global_batch_size=1",
            "train.precision=fp32",
            "train.gradient_checkpointing=off",
        ],
    )


if __name__ == "__main__":
    main()

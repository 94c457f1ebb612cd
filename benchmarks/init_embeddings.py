"""Four ways to begin the new vocabulary rows, compared by held-out loss before and while training.

    python benchmarks/init_rows.py [--quick] [--json FILE]

Base: SmolLM2-135M-Instruct and the demo's vocabulary. Each way trains the same rows in the same order with
the demo's rates (LoRA rank 8 and the new rows, fp32, one process); what differs is `vocab.initialise` alone.
Figures are bits per byte of the demo's held-out Persian, which do not depend on the tokenizer; the base model
with its own tokenizer is the line to beat.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from persianmind.engine.deepspeed.start import prepare_environment, start_distributed  # noqa: E402
from persianmind.engine.ranks import Ranks  # noqa: E402
from persianmind.recipe import Recipe, Vocab  # noqa: E402
from persianmind.recipe.loading import load_recipe  # noqa: E402

METHODS: tuple[str, ...] = get_args(Vocab.model_fields["initialise"].annotation)
ROW_LENGTH = 128


def main() -> None:
    """Builds vocabulary and rows once, then trains once a method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 steps instead of 200")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="only these ways")
    options = parser.parse_args()
    prepare_environment()
    ranks = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
    start_distributed(ranks)
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
    """`bits_per_byte`: one number a mark for each method."""
    from persianmind.evaluate.text import held_out_sequences
    from persianmind.model.bases import resolve_base
    from persianmind.text.corpus import training_texts
    from persianmind.text.heldout import fingerprints_of, select_held_out
    from persianmind.text.spec import source_specs
    from persianmind.vocab.build import build_vocab

    recipe = _recipe("subword-mean")
    base, vocab = resolve_base(recipe.base), folder / "vocab"
    sources = recipe.vocab.sources
    selected = select_held_out(recipe)
    training = list(training_texts(source_specs(recipe, sources), fingerprints_of(selected)))
    build_vocab(base, lambda: iter(training), vocab, new_tokens=recipe.vocab.new_tokens)
    held_out = [document.text for document in selected["fa"]]
    expanded = held_out_sequences(held_out, vocab, ROW_LENGTH)
    train_embeddings = held_out_sequences(training, vocab, ROW_LENGTH).sequences
    figures: dict[str, Any] = {"marks": marks, "bits_per_byte": {}}
    for method in methods:
        curve = list(_curve(_recipe(method), vocab, base, ranks, train_embeddings, expanded, marks))
        figures["bits_per_byte"][method] = curve
        print(f"{method}: {curve}", file=sys.stderr, flush=True)
    engine = _engine(recipe, vocab, base, ranks)
    own = held_out_sequences(held_out, base, ROW_LENGTH)
    figures["base"] = bits_per_byte(engine.summed_loss(own.sequences, base_vocab_only=True), own.n_bytes)
    return figures


def _curve(
    recipe: Recipe, vocab: Path, base: Path, ranks: Ranks, rows: Any, held_out: Any, marks: tuple[int, ...]
) -> Iterator[float]:
    engine = _engine(recipe, vocab, base, ranks)
    train = recipe.train
    adapters, new_rows = train.learning_rate, train.embedding_learning_rate or train.learning_rate
    engine.set_rates({"adapters_a": adapters, "adapters_b": adapters, "embeddings": new_rows})
    endless = cycle(rows)
    for step in range(marks[-1] + 1):
        if step in marks:
            yield bits_per_byte(engine.summed_loss(held_out.sequences), held_out.n_bytes)
        if step < marks[-1]:
            engine.step([next(endless)])
    engine.close()


def _engine(recipe: Recipe, vocab: Path, base: Path, ranks: Ranks) -> Any:
    from persianmind.engine.deepspeed.config import resolve_deepspeed_config
    from persianmind.engine.deepspeed.engine import Engine
    from persianmind.model.adapted import build_adapted
    from persianmind.vocab.expansion import load_expansion

    expansion = load_expansion(vocab)
    pieces = [piece.base_ids for piece in expansion.pieces]
    model = build_adapted(base, recipe, pieces, expansion.base_vocab)
    config = resolve_deepspeed_config(ROOT / "ds_configs" / "zero2.json", recipe, 1)
    return Engine(model, config, ranks)


def _recipe(method: str) -> Recipe:
    return load_recipe(
        "demo",
        [
            f"vocab.initialise={method}",
            f"data.seq_len={ROW_LENGTH}",
            "train.global_batch_size=1",
            "train.precision=fp32",
            "train.gradient_checkpointing=off",
        ],
    )


def bits_per_byte(nats: float, utf8_bytes: int) -> float:
    """Summed negative log-likelihood in nats -> bits a byte of text."""
    return nats / (math.log(2) * utf8_bytes)


if __name__ == "__main__":
    main()

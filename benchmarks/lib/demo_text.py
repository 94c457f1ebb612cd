"""The demo's vocabulary and text as sequences: what the benchmarks of its model train on and score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from persianmind.evaluate.text import HeldOutSequences, held_out_sequences
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.text.corpus import training_texts
from persianmind.text.heldout import held_out_fingerprints, read_held_out, write_held_out
from persianmind.text.spec import source_specs
from persianmind.vocab.build import build_vocab

SEQ_LEN = 128


@dataclass(frozen=True, slots=True)
class DemoText:
    """base, vocab: folders. training: sequences of `SEQ_LEN` over the expanded vocabulary; held_out: the
    evaluated Persian documents over it, held_out_base: over the base's own."""

    base: Path
    vocab: Path
    training: HeldOutSequences
    held_out: HeldOutSequences
    held_out_base: HeldOutSequences


def prepare_demo_text(recipe: Recipe, folder: Path) -> DemoText:
    """Builds the recipe's vocabulary in `folder` and tokenises its text."""
    base, vocab, heldout = resolve_base(recipe.base), folder / "vocab", folder / "heldout"
    write_held_out(recipe, heldout)
    evaluated = held_out_fingerprints(heldout)
    specs = source_specs(recipe, recipe.vocab.sources)
    build_vocab(
        base,
        lambda: training_texts(specs, evaluated),
        vocab,
        new_tokens=recipe.vocab.new_tokens,
        profile=PERSIAN,
    )
    documents = [document.text for document in read_held_out(heldout, "fa")]
    return DemoText(
        base,
        vocab,
        training=held_out_sequences(training_texts(specs, evaluated), vocab, SEQ_LEN),
        held_out=held_out_sequences(documents, vocab, SEQ_LEN),
        held_out_base=held_out_sequences(documents, base, SEQ_LEN),
    )


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Summed negative log-likelihood in nats -> bits per byte of text."""
    return nats / (math.log(2) * n_bytes)

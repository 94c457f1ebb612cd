"""Held-out scores after every stage, and of the untouched base model as sequence 0."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import NonFiniteError
from persianmind.engine.deepspeed.engine import Engine
from persianmind.evaluate.text import Batch, HeldOutSequences, held_out_sequences, score
from persianmind.recipe import Recipe
from persianmind.run.log import add_evaluation, read_results
from persianmind.text.documents import held_out_texts

BASE = "base"


class Evaluation:
    """Scores every held-out language of a recipe; all ranks call it together, rank 0 writes the sequence."""

    def __init__(self, recipe: Recipe, run: Path, engine: Engine, say: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.run = run
        self.engine = engine
        self.say = say
        names = recipe.heldout.sources
        self.languages = list(dict.fromkeys(recipe.sources[name].language for name in names))
        self._expanded: dict[str, HeldOutSequences] | None = None

    def base(self, base: Path) -> tuple[float, int]:
        """Row 0: the base with its own tokenizer and vocabulary; needs the adapters as they were made.

        Returns the seconds it took and the tokens of all ranks together.
        """
        sequences = self._sequences(base)
        started_s = time.perf_counter()
        self._sequence(BASE, sequences, base_vocab_only=True)
        return time.perf_counter() - started_s, sum(held_out.tokens for held_out in sequences.values())

    def after(self, stage: str) -> None:
        """The sequence of a finished stage, with the expanded tokenizer."""
        if self._expanded is None:
            self._expanded = self._sequences(self.run / "vocab")
        self._sequence(stage, self._expanded, base_vocab_only=False)

    def has(self, stage: str) -> bool:
        """Whether results.json has this sequence already (rank 0's file, read by all)."""
        return any(sequence["stage"] == stage for sequence in read_results(self.run)["perplexity"])

    def _sequences(self, tokenizer_dir: Path) -> dict[str, HeldOutSequences]:
        length = self.recipe.data.seq_len
        return {
            language: held_out_sequences(held_out_texts(self.recipe, language), tokenizer_dir, length)
            for language in self.languages
        }

    def _sequence(self, stage: str, sequences: dict[str, HeldOutSequences], *, base_vocab_only: bool) -> None:
        def summed(batches: Sequence[Batch]) -> float:
            return self.engine.summed_loss(batches, base_vocab_only=base_vocab_only)

        sequence: dict[str, Any] = {"stage": stage}
        for language, held_out in sequences.items():
            sequence[language] = score(
                held_out,
                summed,
                rank=self.engine.ranks.rank,
                world_size=self.engine.ranks.world_size,
                sum_over_ranks=self.engine.sum_over_ranks,
            ).as_json()
            bits = sequence[language]["bits_per_byte"]
            if not math.isfinite(bits):
                raise NonFiniteError(
                    f"evaluate {stage}: the loss on held-out {language} text is not finite; the last good "
                    "checkpoint is kept: lower the learning rate, or try train.precision=fp32"
                )
            self.say(f"evaluate {stage}: {language} {bits:.4f} bits per byte")
        if self.engine.ranks.rank == 0:
            add_evaluation(self.run, sequence)

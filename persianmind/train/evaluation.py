"""Held-out scores after every stage, and of the untouched base model as row 0."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from persianmind.errors import NonFiniteError
from persianmind.evaluate.perplexity import Batch, HeldOutRows, held_out_rows, score
from persianmind.recipe import Recipe
from persianmind.text.documents import held_out_texts
from persianmind.train.engine import Engine
from persianmind.train.runlog import add_evaluation, read_results

BASE = "base"


class Evaluation:
    """Scores every held-out language of a recipe; all ranks call it together, rank 0 writes the row."""

    def __init__(self, recipe: Recipe, run: Path, engine: Engine, say: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.run = run
        self.engine = engine
        self.say = say
        names = recipe.heldout.sources
        self.languages = list(dict.fromkeys(recipe.sources[name].language for name in names))
        self._expanded: dict[str, HeldOutRows] | None = None

    def base(self, base: Path) -> tuple[float, int]:
        """Row 0: the base with its own tokenizer and vocabulary; needs the adapters as they were made.

        Returns the seconds it took and the tokens of all ranks together.
        """
        rows = self._rows(base)
        started_s = time.perf_counter()
        self._row(BASE, rows, base_rows_only=True)
        return time.perf_counter() - started_s, sum(held_out.tokens for held_out in rows.values())

    def after(self, stage: str) -> None:
        """The row of a finished stage, with the expanded tokenizer."""
        if self._expanded is None:
            self._expanded = self._rows(self.run / "vocab")
        self._row(stage, self._expanded, base_rows_only=False)

    def has(self, stage: str) -> bool:
        """Whether results.json has this row already (rank 0's file, read by all)."""
        return any(row["stage"] == stage for row in read_results(self.run)["perplexity"])

    def _rows(self, tokenizer_dir: Path) -> dict[str, HeldOutRows]:
        length = self.recipe.data.row_length
        return {
            language: held_out_rows(held_out_texts(self.recipe, language), tokenizer_dir, length)
            for language in self.languages
        }

    def _row(self, stage: str, rows: dict[str, HeldOutRows], *, base_rows_only: bool) -> None:
        def summed(batches: Sequence[Batch]) -> float:
            return self.engine.summed_loss(batches, base_rows_only=base_rows_only)

        row: dict[str, Any] = {"stage": stage}
        for language, held_out in rows.items():
            row[language] = score(
                held_out,
                summed,
                rank=self.engine.ranks.rank,
                world_size=self.engine.ranks.world_size,
                sum_over_ranks=self.engine.sum_over_ranks,
            ).as_json()
            bits = row[language]["bits_per_byte"]
            if not math.isfinite(bits):
                raise NonFiniteError(
                    f"evaluate {stage}: the loss on held-out {language} text is not finite; the last good "
                    "checkpoint is kept: lower the learning rate, or try train.precision=fp32"
                )
            self.say(f"evaluate {stage}: {language} {bits:.4f} bits per byte")
        if self.engine.ranks.rank == 0:
            add_evaluation(self.run, row)

"""Held-out scores: of the untouched base model before anything is trained, and after every stage."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.errors import CheckpointError, NonFiniteError
from persianmind.engine.base import Batch
from persianmind.evaluate.text import HeldOutSequences, held_out_sequences, score
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.run.log import add_evaluation, read_results
from persianmind.run.records import BASE_STAGE, EvaluationResult, Phase
from persianmind.text.heldout import read_held_out
from persianmind.train.callbacks.base import Callback
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext

logger = logging.getLogger(__name__)


class EvaluateCallback(Callback):
    """Scores every held-out language; all ranks together, rank 0 writes the results.

    base_scored: (seconds, tokens) of scoring the base, all ranks together; None where this start did not.
    """

    name = "evaluate"

    def __init__(self, recipe: Recipe) -> None:
        self.languages = recipe.held_out_languages()
        self.base_scored: tuple[float, int] | None = None
        self._expanded: dict[str, HeldOutSequences] | None = None

    def start(self, context: RunContext) -> None:
        """The base with its own tokenizer and vocabulary; needs the adapters as they were made.

        Raises:
            CheckpointError: training has begun and the base was never scored.
        """
        if self._has(context, BASE_STAGE):
            return
        if context.step:
            raise CheckpointError(
                f"{context.folder.results} lost its scores of the base and training has begun; restore it"
            )
        context.mark(Phase.EVALUATE, BASE_STAGE)
        sequences = self._sequences(context, resolve_base(context.recipe.base))
        started_s = time.perf_counter()
        self._score(context, BASE_STAGE, sequences, base_vocab_only=True)
        self.base_scored = (time.perf_counter() - started_s, _count_tokens(sequences))

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        stage = plan.stage.name
        if self._has(context, stage):
            return
        context.mark(Phase.EVALUATE, stage)
        self._score(context, stage, self._stage_sequences(context), base_vocab_only=False)

    def stage_tokens(self, context: RunContext) -> int:
        """What the evaluation at the end of a stage scores."""
        return _count_tokens(self._stage_sequences(context))

    def _stage_sequences(self, context: RunContext) -> dict[str, HeldOutSequences]:
        if self._expanded is None:
            self._expanded = self._sequences(context, context.folder.vocab)
        return self._expanded

    def _has(self, context: RunContext, stage: str) -> bool:
        """Whether results.json has this stage already (rank 0's file, read by all)."""
        if not self.languages:
            return True
        return any(result.stage == stage for result in read_results(context.folder).evaluation)

    def _sequences(self, context: RunContext, tokenizer_dir: Path) -> dict[str, HeldOutSequences]:
        return {
            language: held_out_sequences(
                [document.text for document in read_held_out(context.folder.heldout, language)],
                tokenizer_dir,
                context.recipe.data.seq_len,
            )
            for language in self.languages
        }

    def _score(
        self,
        context: RunContext,
        stage: str,
        sequences: dict[str, HeldOutSequences],
        *,
        base_vocab_only: bool,
    ) -> None:
        def summed_loss(batches: Sequence[Batch]) -> float:
            return context.engine.summed_loss(batches, base_vocab_only=base_vocab_only)

        results: list[EvaluationResult] = []
        for language, held_out in sequences.items():
            found = score(
                held_out,
                summed_loss,
                rank=context.ranks.rank,
                world_size=context.ranks.world_size,
                sum_over_ranks=context.engine.sum,
            )
            if not math.isfinite(found.bits_per_byte):
                raise NonFiniteError(
                    f"evaluate {stage}: the loss on held-out {language} text is not finite; the last good "
                    "checkpoint is kept: lower the learning rate, or try train.precision=fp32"
                )
            results.append(
                EvaluationResult(
                    stage=stage,
                    language=language,
                    bits_per_byte=found.bits_per_byte,
                    perplexity=found.perplexity,
                    n_tokens=found.n_tokens,
                    n_documents=found.n_documents,
                    n_bytes=found.n_bytes,
                )
            )
            logger.info(f"evaluate {stage}: {language} {found.bits_per_byte:.4f} bits per byte")
        if context.is_main:
            add_evaluation(context.folder, results)


def _count_tokens(sequences: Mapping[str, HeldOutSequences]) -> int:
    return sum(held_out.n_tokens for held_out in sequences.values())

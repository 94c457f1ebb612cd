"""Held-out scores: of the untouched base model before anything is trained, after every stage, and where the
recipe asks for it within stages."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.bounded import LARGEST_EXPONENT
from persianmind.common.errors import CheckpointError, NonFiniteError
from persianmind.engine.base import Batch
from persianmind.evaluate.stats import bootstrap_difference
from persianmind.evaluate.text import Floats, HeldOutSequences, Score, held_out_sequences, score
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.log import add_evaluation, add_evaluation_within, read_results
from persianmind.run.records import BASE_STAGE, Phase
from persianmind.text.heldout import read_held_out
from persianmind.train.callbacks.base import Callback
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

logger = logging.getLogger(__name__)


class EvaluateCallback(Callback):
    """Scores every held-out language; all ranks together, rank 0 writes the results.

    base_scored: (seconds, tokens) of scoring the base, all ranks together; None where this start did not.
    newest: bits per byte by language of the last scores of this start, with the step they are of.
    new_nats, new_tokens, nats, tokens: of them, over all languages, what falls on new tokens and in all.
    """

    name = "evaluate"

    def __init__(self, recipe: Recipe) -> None:
        self.languages = recipe.held_out_languages()
        self.every_steps = recipe.evaluate.every_steps
        self.base_scored: tuple[float, int] | None = None
        self.newest: tuple[int, dict[str, float]] | None = None
        self.new_ratios: tuple[float, float] | None = None
        self._expanded: dict[str, HeldOutSequences] | None = None
        self._before: dict[str, tuple[str, Floats]] = {}

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
        results = self._score(context, BASE_STAGE, sequences, base_vocab_only=True)
        self.base_scored = (time.perf_counter() - started_s, _count_tokens(sequences))
        if context.is_main:
            add_evaluation(context.folder, results)
            context.log.append_scores(0, results)

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        if self.every_steps is None or context.at_stage_end or context.step % self.every_steps:
            return
        stage = context.plan.stage.name
        if not self.languages:
            return
        context.mark(Phase.EVALUATE, stage)
        results = self._score(context, stage, self.stage_sequences(context), step=context.step)
        if context.is_main:
            add_evaluation_within(context.folder, results)
            context.log.append_scores(context.step, results)

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        stage = plan.stage.name
        if self._has(context, stage):
            return
        context.mark(Phase.EVALUATE, stage)
        results = self._score(context, stage, self.stage_sequences(context))
        if context.is_main:
            add_evaluation(context.folder, results)
            context.log.append_scores(context.step, results)

    def _compare_with_before(
        self, stage: str, language: str, held_out: HeldOutSequences, found: Score
    ) -> None:
        """Says where the held-out text cannot tell this stage from the one before it, document by
        document."""
        before, self._before[language] = self._before.get(language), (stage, found.nats_N)
        if before is None or held_out.n_documents < 2:
            return
        interval = bootstrap_difference(found.nats_N, before[1], held_out.bytes_N)
        if interval.low is not None and interval.high is not None and interval.low <= 0 <= interval.high:
            logger.info(
                f"evaluate {stage}: {held_out.n_documents} {language} documents cannot tell it from "
                f"{before[0]}; in another --output a larger heldout.ratio or heldout.max_characters would"
            )

    def stage_tokens(self, context: RunContext) -> int:
        """What the evaluation at the end of a stage scores."""
        return _count_tokens(self.stage_sequences(context))

    def stage_sequences(self, context: RunContext) -> dict[str, HeldOutSequences]:
        """Held-out text by language, in the expanded vocabulary."""
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
        sequences: Mapping[str, HeldOutSequences],
        *,
        base_vocab_only: bool = False,
        step: int | None = None,
    ) -> list[EvaluationResult]:
        results: list[EvaluationResult] = []
        scores: dict[str, Score] = {}
        for language, held_out in sequences.items():
            found = score_language(context, held_out, base_vocab_only=base_vocab_only)
            if not math.isfinite(found.bits_per_byte):
                raise NonFiniteError(
                    f"evaluate {stage}: the loss on held-out {language} text is not finite; the last good "
                    "checkpoint is kept: begin another --output with a lower learning rate, or with "
                    "train.precision=fp32"
                )
            scores[language] = found
            results.append(evaluation_result(stage, language, held_out, found, step))
            logger.info(f"evaluate {stage}{_at(step)}: {language} {_bits(found)} bits per byte")
            if step is None:
                self._compare_with_before(stage, language, held_out, found)
        self.newest = (context.step, {language: one.bits_per_byte for language, one in scores.items()})
        nats = sum(float(one.nats_N.sum()) for one in scores.values())
        tokens = _count_tokens(sequences)
        if nats and tokens:
            new = [sum(getattr(one, key) for one in scores.values()) for key in ("new_nats", "new_tokens")]
            self.new_ratios = (new[0] / nats, new[1] / tokens)
        return results


def score_language(
    context: RunContext, held_out: HeldOutSequences, *, base_vocab_only: bool = False
) -> Score:
    """The score of one language by the model as it stands; all ranks together."""

    def target_losses(batches: Sequence[Batch]) -> list[Floats]:
        return context.engine.target_losses(batches, base_vocab_only=base_vocab_only)

    return score(
        held_out,
        target_losses,
        rank=context.ranks.rank,
        world_size=context.ranks.world_size,
        sum_over_ranks=context.engine.sum_floats,
        base_vocab=context.engine.model.output_table.base_vocab,
    )


def evaluation_result(
    stage: str, language: str, held_out: HeldOutSequences, found: Score, step: int | None
) -> EvaluationResult:
    """As results.json has it."""
    nats = float(found.nats_N.sum())
    bits, characters, words = nats / math.log(2), held_out.characters_N.sum(), held_out.words_N.sum()
    return EvaluationResult(
        stage=stage,
        language=language,
        bits_per_byte=found.bits_per_byte,
        ci_low=found.interval.low,
        ci_high=found.interval.high,
        n_documents=held_out.n_documents,
        n_bytes=held_out.n_bytes,
        n_tokens=held_out.n_tokens,
        n_characters=int(characters),
        n_words=int(words),
        bits_per_character=bits / characters if characters else None,
        bits_per_word=bits / words if words else None,
        perplexity=math.exp(min(nats / max(1, held_out.n_tokens), LARGEST_EXPONENT)),
        tokenizer=held_out.tokenizer,
        step=step,
    )


def _count_tokens(sequences: Mapping[str, HeldOutSequences]) -> int:
    return sum(held_out.n_tokens for held_out in sequences.values())


def _bits(found: Score) -> str:
    low, high = found.interval.low, found.interval.high
    interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
    return f"{found.bits_per_byte:.4f}{interval}"


def _at(step: int | None) -> str:
    return "" if step is None else f" step {step}"

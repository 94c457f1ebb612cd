"""Suites of tests: of the untouched base, after every stage, and where the recipe asks for it within
stages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.checksum import hash_text
from persianmind.common.errors import DataError
from persianmind.data.chat_form import ChatForm
from persianmind.engine.ranks import TorchGroup
from persianmind.evaluate.chat_model import ChatModel
from persianmind.evaluate.evaluated import DEFAULT_WINDOW, EvaluatedModel
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.published import published_beside
from persianmind.evaluate.session import Share, Wanted, run_suites
from persianmind.evaluate.suite import load_suite
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.run.evaluation_records import SuiteResult
from persianmind.run.log import add_suite_results, read_results
from persianmind.run.records import BASE_STAGE, Phase
from persianmind.tokenizer import FolderTokenizer
from persianmind.train.callbacks.base import Callback
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

logger = logging.getLogger(__name__)


class SuiteCallback(Callback):
    """All ranks share the items; rank 0 writes results and records.

    base_s: seconds of the base's suites; 0.0 where this start ran none. newest: the last results of this
    start, with their step.
    """

    name = "suites"

    def __init__(self, recipe: Recipe) -> None:
        self.suites = [load_suite(one) for one in recipe.evaluate.suites]
        self.every_steps = recipe.evaluate.every_steps if recipe.evaluate.suites_within_stages else None
        self.base_s = 0.0
        self.newest: tuple[int, list[SuiteResult]] | None = None

    def start(self, context: RunContext) -> None:
        """The base, with its own tokenizer and so with its own ids alone."""
        if context.step == 0:
            started_s = time.perf_counter()
            self._run(context, BASE_STAGE, resolve_base(context.recipe.base), None)
            self.base_s = time.perf_counter() - started_s

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        if self.every_steps is None or context.at_stage_end or context.step % self.every_steps:
            return
        self._run(context, context.plan.stage.name, context.folder.vocab, context.step)

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        if context.step == plan.last_step:  # at a start, weights of a stage that was done before are gone
            self._run(context, plan.stage.name, context.folder.vocab, None)

    def _run(self, context: RunContext, stage: str, tokenizer_dir: Path, step: int | None) -> None:
        """Suites of one stage, where results.json has none yet; all ranks together."""
        if not self.suites:
            return
        done = context.is_main and any(
            (one.stage, one.step) == (stage, step) for one in read_results(context.folder).results
        )
        if context.engine.max(int(done)):
            return
        context.mark(Phase.EVALUATE, stage)
        model = _evaluated(context, stage, tokenizer_dir)
        group = TorchGroup(context.ranks)
        share = Share(context.ranks.rank, context.ranks.world_size, group.all_gather)
        options = context.recipe.evaluate
        wanted = Wanted(
            data=Path(options.data),
            out=context.folder.evaluation,
            limit=options.limit,
            stage=stage,
            step=step,
        )
        joules = None if context.meter is None else context.meter.joules
        with generation_mode(model.causal_lm):
            outcomes = run_suites(model, self.suites, wanted, share, joules or (lambda: None))
        self.newest = (context.step, outcomes.results)
        if context.is_main:
            published = published_beside(outcomes.results)
            add_suite_results(context.folder, outcomes.results, outcomes.not_run, published)
            if stage == BASE_STAGE:
                for one in outcomes.not_run:
                    logger.warning(f"evaluate {one.suite}/{one.task}: not run, {one.reason}")


def _evaluated(context: RunContext, stage: str, tokenizer_dir: Path) -> EvaluatedModel:
    """The live model; of the base its own vocabulary alone."""
    recipe, model = context.recipe, context.engine.model
    tokenizer = FolderTokenizer(tokenizer_dir)
    form: ChatForm | None = None
    normalise: Callable[[str], str] = str.strip
    try:
        chat = ChatModel.of_recipe(model.causal_lm, tokenizer_dir, recipe)
        form, normalise = chat.form, chat.normalise
    except DataError as error:
        logger.warning(f"evaluate {stage}: nothing is asked in a prompt, {error}")
    stated = getattr(model.causal_lm.config, "max_position_embeddings", None)
    is_base = stage == BASE_STAGE
    return EvaluatedModel(
        name=f"{context.folder} {stage}",
        causal_lm=model.causal_lm,
        tokenizer=tokenizer,
        fingerprint=hash_text(
            context.prepared.base_fingerprint, context.prepared.tokenizer_fingerprint, str(context.step)
        ),
        form=form,
        normalise=normalise,
        vocab_size=model.output_table.base_vocab if is_base else None,
        window=stated if isinstance(stated, int) and stated > 0 else DEFAULT_WINDOW,
        max_batch_tokens=max(512, recipe.train.micro_batch_size * recipe.data.seq_len),
        run=None if is_base else context.folder.path,
        on_progress=context.on_progress,
    )

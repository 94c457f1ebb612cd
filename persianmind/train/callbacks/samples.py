"""What the model writes after the recipe's prompts: the untouched base before anything is trained, and every
stage at its end."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.errors import DataError
from persianmind.evaluate.chat_model import ChatModel
from persianmind.evaluate.generate import generation_mode
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.run.log import add_samples, read_results
from persianmind.run.records import BASE_STAGE, Phase, SampleText
from persianmind.train.callbacks.base import Callback
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext

logger = logging.getLogger(__name__)


class SampleCallback(Callback):
    """Rank 0 generates, prompt by prompt, and writes the texts into results.json.

    After each prompt all ranks meet: none waits longer in an exchange than one answer takes, whatever the
    number of prompts.

    base_s: seconds of the base's own samples; 0.0 where this start wrote none.
    """

    name = "samples"

    def __init__(self, recipe: Recipe) -> None:
        self.prompts = recipe.evaluate.prompts
        self.base_s = 0.0

    def start(self, context: RunContext) -> None:
        """The base, with its own tokenizer and so with its own ids alone; needs the adapters as they were
        made."""
        if context.step == 0:
            started_s = time.perf_counter()
            self._sample(context, BASE_STAGE, resolve_base(context.recipe.base))
            self.base_s = time.perf_counter() - started_s

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        if context.step == plan.last_step:  # at a start, weights of a stage that was done before are gone
            self._sample(context, plan.stage.name, context.folder.vocab)

    def _sample(self, context: RunContext, stage: str, tokenizer_dir: Path) -> None:
        """Samples of one stage, where results.json has none yet; all ranks together."""
        if not self.prompts:
            return
        model = _chat_model(context, stage, tokenizer_dir) if context.is_main else None
        if not context.engine.max(int(model is not None)):
            return
        context.mark(Phase.EVALUATE, stage)
        samples: list[SampleText] = []
        with nullcontext() if model is None else generation_mode(model.causal_lm):
            for prompt in self.prompts:
                if model is not None:
                    samples.append(_sample_text(context, model, prompt, stage))
                context.engine.max(0)
        if samples:
            add_samples(context.folder, samples)
            logger.info(f"samples {stage}: {len(samples)} written to {context.folder.results}")


def _chat_model(context: RunContext, stage: str, tokenizer_dir: Path) -> ChatModel | None:
    """The model as it stands; None where this stage has its samples, or cannot have any."""
    if any(sample.stage == stage for sample in read_results(context.folder).samples):
        return None
    try:
        return ChatModel.of_recipe(context.engine.model.causal_lm, tokenizer_dir, context.recipe)
    except DataError as error:
        # Only a base as it was downloaded: the run's own tokenizer has written dialogues by now.
        logger.warning(f"samples {stage}: none, {error}")
        return None


def _sample_text(context: RunContext, model: ChatModel, prompt: str, stage: str) -> SampleText:
    text = model.sample(
        prompt, max_new_tokens=context.recipe.evaluate.max_new_tokens, on_piece=context.on_progress
    )
    return SampleText(prompt=prompt, text=text, stage=stage)

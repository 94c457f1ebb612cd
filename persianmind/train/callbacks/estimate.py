"""Says before step 1 how long the rest of the run will take, and what it will use."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import psutil

from persianmind.energy.budget import Budget
from persianmind.estimate.time import FirstScores, estimate_run, remaining_phases
from persianmind.run.beside_steps import BesideSteps
from persianmind.run.log import decided_recipe, update_results
from persianmind.train.callbacks.base import Callback
from persianmind.train.callbacks.evaluate import EvaluateCallback
from persianmind.train.callbacks.samples import SampleCallback
from persianmind.train.callbacks.suites import SuiteCallback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext

logger = logging.getLogger(__name__)


class EstimateCallback(Callback):
    """From what scoring the untouched base, its suites and its samples took; so it stands after them, and
    says nothing in a run that goes on."""

    name = "estimate"

    def __init__(
        self, budget: Budget, evaluate: EvaluateCallback, suites: SuiteCallback, samples: SampleCallback
    ) -> None:
        self.budget = budget
        self.evaluate = evaluate
        self.suites = suites
        self.samples = samples

    def start(self, context: RunContext) -> None:
        if self.evaluate.base_scored is None or not context.is_main:
            return
        forward_s, forward_tokens = self.evaluate.base_scored
        measured = FirstScores(
            forward_s=forward_s,
            forward_tokens=forward_tokens,
            sample_s=self.samples.base_s,
            suites_s=self.suites.base_s,
            stage_tokens=self.evaluate.stage_tokens(context),
            weight_bytes=sum(
                value.numel() * value.element_size() for value in context.engine.model.parameters()
            ),
            ranks=context.ranks.world_size,
            elapsed_s=time.time() - psutil.Process().create_time(),
            layers=context.engine.model.layer_count,
        )
        watts = None if context.meter is None else context.meter.watts()
        if watts is not None:
            watts *= context.ranks.world_size / context.ranks.local_size
        recipe = decided_recipe(context.recipe, context.folder)
        steps, tokens = context.total_steps, context.total_tokens
        context.beside.expected = BesideSteps(
            stage_end_s=measured.scores_s + measured.suites_s + measured.sample_s,
            within_s=measured.within_s(recipe.evaluate.suites_within_stages),
            export_s=remaining_phases(recipe, steps, tokens, measured).export_s,
        )
        update_results(context.folder, beside_steps=context.beside.known)
        for line in estimate_run(recipe, steps, tokens, measured, watts, self.budget):
            logger.info(line)

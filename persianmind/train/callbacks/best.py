"""The best checkpoint by a named metric, and the end of a stage that no longer betters it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persianmind.recipe import Recipe
from persianmind.run.log import read_results, update_results
from persianmind.run.records import BestCheckpoint
from persianmind.train.callbacks.base import Callback
from persianmind.train.callbacks.evaluate import EvaluateCallback
from persianmind.train.callbacks.save import SaveCallback
from persianmind.train.callbacks.suites import SuiteCallback
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

logger = logging.getLogger(__name__)


class BestCallback(Callback):
    """Stands after the callbacks that measure. best: the best value so far and its step; misses: measurements
    of this stage that did not better it; ended: stages that ended early, with their length in steps."""

    name = "best"

    def __init__(
        self, recipe: Recipe, evaluate: EvaluateCallback, suites: SuiteCallback, saves: SaveCallback
    ) -> None:
        self.metric = recipe.evaluate.best_metric
        self.patience, self.min_gain = recipe.evaluate.patience, recipe.evaluate.min_gain
        self.evaluate, self.suites, self.saves = evaluate, suites, saves
        self.best: tuple[float, int] | None = None
        self.misses = 0
        self.ended: dict[str, int] = {}
        self._seen_step = 0

    def start(self, context: RunContext) -> None:
        if self.ended:
            context.replan(self.ended)
        recorded = read_results(context.folder).best
        if self.metric is not None and recorded is not None and recorded.metric == self.metric:
            self.saves.store.keep_step = recorded.step
            if self.best is None and recorded.step <= context.step:
                self.best = (recorded.value, recorded.step)

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        if self._judge(context) and self.patience is not None and self.misses >= self.patience:
            stage = context.plan.stage.name
            if not context.at_stage_end:
                self.ended[stage] = context.stage_step
                logger.info(f"stage {stage} ends at step {context.step}: {self.metric} no longer gets better")
                context.replan(self.ended)

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        if context.step == plan.last_step:
            self._judge(context)
        self.misses = 0

    def state_dict(self) -> dict[str, Any]:
        best = None if self.best is None else [self.best[0].hex(), self.best[1]]
        return {"best": best, "misses": self.misses, "ended": self.ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        best = state.get("best")
        self.best = None if best is None else (float.fromhex(best[0]), int(best[1]))
        self.misses = int(state.get("misses", 0))
        self.ended = {str(name): int(steps) for name, steps in state.get("ended", {}).items()}

    def _judge(self, context: RunContext) -> bool:
        """Whether there was a new value; the same on every rank."""
        value = None if self.metric is None else self._value(context.step)
        if value is None or self._seen_step == context.step:
            return False
        self._seen_step = context.step
        if self.best is not None and not self._betters(value, self.best[0]):
            self.misses += 1
            return True
        self.best, self.misses = (value, context.step), 0
        self.saves.keep(context)
        if context.is_main:
            assert self.metric is not None
            best = BestCheckpoint(metric=self.metric, value=value, step=context.step)
            update_results(context.folder, best=best)
            logger.info(
                f"best {self.metric} so far: {value:.4f} at step {context.step}, its checkpoint is kept"
            )
        return True

    def _value(self, step: int) -> float | None:
        """Of this step: bits per byte of a language, or a metric of a suite."""
        assert self.metric is not None
        if "/" not in self.metric:
            newest = self.evaluate.newest
            return None if newest is None or newest[0] != step else newest[1].get(self.metric)
        if self.suites.newest is None or self.suites.newest[0] != step:
            return None
        named = (
            one for one in self.suites.newest[1] if f"{one.suite}/{one.task}/{one.metric}" == self.metric
        )
        return next((one.value for one in named), None)

    def _betters(self, value: float, best: float) -> bool:
        """Bits per byte get better as they fall, metrics of suites as they rise."""
        assert self.metric is not None
        lower = "/" not in self.metric or "bits_per_" in self.metric
        gain = (best - value) if lower else (value - best)
        return gain > self.min_gain * abs(best)

"""Ends a stage early once its loss has stopped falling."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from persianmind.recipe import Stage
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

logger = logging.getLogger(__name__)


class PlateauCallback(Callback):
    """The losses of this stage's last steps, and the stages that ended early with their length in steps."""

    name = "plateau"

    def __init__(self, stages: Iterable[Stage]) -> None:
        longest = max((2 * (stage.plateau_steps or 0) for stage in stages), default=0)
        self.losses: deque[float] = deque(maxlen=longest)
        self.ended: dict[str, int] = {}

    def start(self, context: RunContext) -> None:
        if self.ended:
            context.replan(self.ended)

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        self.add(outcome.result.loss, outcome.result.grad_norm)
        if not context.at_stage_end and self.on_plateau(context.plan.stage):
            stage = context.plan.stage.name
            self.ended[stage] = context.stage_step
            logger.info(f"stage {stage} ends at step {context.step}: its loss stopped falling")
            context.replan(self.ended)
        if context.at_stage_end:
            self.losses.clear()

    def add(self, loss: float, grad_norm: float) -> None:
        """Remembers a step."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.losses.append(loss)

    def on_plateau(self, stage: Stage) -> bool:
        """Whether the mean loss of the stage's last `plateau_steps` steps is not lower than that of the
        `plateau_steps` before by at least the ratio `plateau_min_gain`."""
        steps = stage.plateau_steps
        if steps is None or len(self.losses) < 2 * steps:
            return False
        losses = list(self.losses)[-2 * steps :]
        before, now = statistics.fmean(losses[:steps]), statistics.fmean(losses[steps:])
        return now > before * (1 - stage.plateau_min_gain)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": [value.hex() for value in self.losses], "ended": self.ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses.clear()
        self.losses.extend(float.fromhex(value) for value in state.get("losses", []))
        self.ended = {str(name): int(steps) for name, steps in state.get("ended", {}).items()}

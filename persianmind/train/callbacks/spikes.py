"""Steps that move no weight: spikes, left out on request, and losses or gradients that are not finite."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import NonFiniteError
from persianmind.recipe import Train
from persianmind.run.records import SkipReason
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

logger = logging.getLogger(__name__)


class SpikeCallback(Callback):
    """Judges steps by the losses (nats per target) and gradient norms of the last steps.

    Both are the same on every rank, so all ranks decide alike; the state goes into each checkpoint, so a
    resumed run decides as an uninterrupted one.
    """

    name = "spikes"

    def __init__(self, train: Train) -> None:
        self.sigma = train.spike_sigma
        self.nonfinite_budget = train.nonfinite_budget
        self.losses: deque[float] = deque(maxlen=train.spike_window)
        self.grad_norms: deque[float] = deque(maxlen=train.spike_window)

    @property
    def skips_steps(self) -> bool:  # type: ignore[override]
        """Whether the recipe asks for the spike rule."""
        return self.sigma is not None

    def should_skip(self, loss: float, grad_norm: float) -> bool:
        """Whether loss or norm lies above mean + sigma x standard deviation of a whole window.

        Until the window is full nothing is a spike: the first steps of a run are its steepest.
        """
        return self._above(self.losses, loss) or self._above(self.grad_norms, grad_norm)

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        """All ranks skipped the step alike if it was a spike or not finite; within a budget, go on.

        Raises:
            NonFiniteError: more steps in a row than `train.nonfinite_budget` were not finite.
        """
        result = outcome.result
        self.add(result.loss, result.grad_norm)
        samples = f"samples {outcome.samples.start} to {outcome.samples.stop - 1}"
        if result.skip_reason is not SkipReason.NONFINITE:
            context.nonfinite_steps = 0
            if result.skip_reason is SkipReason.SPIKE:
                logger.info(
                    f"step {context.step}: loss {result.loss:.4f}, gradient norm {result.grad_norm:.3g} is a "
                    f"spike, step skipped ({samples})"
                )
            return
        context.nonfinite_steps += 1
        logger.info(f"step {context.step}: loss or gradient not finite, step skipped ({samples})")
        if context.nonfinite_steps > self.nonfinite_budget:
            for callback in context.callbacks:
                callback.interrupt(context)
            raise NonFiniteError(
                f"{context.nonfinite_steps} steps in a row were not finite, the last with {samples} of the "
                "stage; the last good checkpoint is kept: look at these sequences with `persianmind data "
                "inspect`, or begin another --output with a lower learning rate"
            )

    def add(self, loss: float, grad_norm: float) -> None:
        """Remembers a step, spikes included: a lasting change of level then ends by itself to be one."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.losses.append(loss)
            self.grad_norms.append(grad_norm)

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": [value.hex() for value in self.losses],
            "grad_norms": [value.hex() for value in self.grad_norms],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, values in (("losses", self.losses), ("grad_norms", self.grad_norms)):
            values.clear()
            values.extend(float.fromhex(value) for value in state.get(name, []))

    def _above(self, window: deque[float], value: float) -> bool:
        if self.sigma is None or len(window) < (window.maxlen or 0):
            return False
        return value > statistics.fmean(window) + self.sigma * statistics.pstdev(window)

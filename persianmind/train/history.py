"""What past steps decide: spikes to leave out, and a stage that ends on a plateau.

The decisions hang on the losses and gradient norms alone, which are the same on every rank, so all ranks
decide alike; the state goes into each checkpoint, so a resumed run decides as an uninterrupted one.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from persianmind.recipe import Stage, Train


class History:
    """Losses (nats a target) and gradient norms of the last steps, and the stages that ended early."""

    def __init__(self, train: Train, stages: Iterable[Stage]) -> None:
        self.sigma = train.spike_sigma
        self.losses: deque[float] = deque(maxlen=train.spike_window)
        self.grad_norms: deque[float] = deque(maxlen=train.spike_window)
        longest = max((2 * (stage.plateau_steps or 0) for stage in stages), default=0)
        self.stage_losses: deque[float] = deque(maxlen=longest)
        self.ended: dict[str, int] = {}

    @property
    def watches_spikes(self) -> bool:
        """Whether the recipe asks for the spike rule."""
        return self.sigma is not None

    def is_spike(self, loss: float, grad_norm: float) -> bool:
        """Whether loss or norm lies above mean + sigma x standard deviation of a whole window.

        Until the window is full nothing is a spike: the first steps of a run are its steepest.
        """
        return self._above(self.losses, loss) or self._above(self.grad_norms, grad_norm)

    def add(self, loss: float, grad_norm: float) -> None:
        """Remembers a step, spikes included: a lasting change of level then ends by itself to be one."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.losses.append(loss)
            self.grad_norms.append(grad_norm)
            self.stage_losses.append(loss)

    def on_plateau(self, stage: Stage) -> bool:
        """Whether the mean loss of the stage's last `plateau_steps` steps is not lower than that of the
        `plateau_steps` before by at least the share `plateau_min_gain`."""
        steps = stage.plateau_steps
        if steps is None or len(self.stage_losses) < 2 * steps:
            return False
        losses = list(self.stage_losses)[-2 * steps :]
        before, now = statistics.fmean(losses[:steps]), statistics.fmean(losses[steps:])
        return now > before * (1 - stage.plateau_min_gain)

    def stage_done(self) -> None:
        """Forgets the losses of the stage that is over."""
        self.stage_losses.clear()

    def state_dict(self) -> dict[str, Any]:
        """JSON for a checkpoint's manifest; floats as hex, exact."""
        return {
            "losses": [value.hex() for value in self.losses],
            "grad_norms": [value.hex() for value in self.grad_norms],
            "stage_losses": [value.hex() for value in self.stage_losses],
            "ended": self.ended,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state` gave."""
        for name in ("losses", "grad_norms", "stage_losses"):
            values: deque[float] = getattr(self, name)
            values.clear()
            values.extend(float.fromhex(value) for value in state.get(name, []))
        self.ended = {str(name): int(steps) for name, steps in state.get("ended", {}).items()}

    def _above(self, window: deque[float], value: float) -> bool:
        if self.sigma is None or len(window) < (window.maxlen or 0):
            return False
        return value > statistics.fmean(window) + self.sigma * statistics.pstdev(window)

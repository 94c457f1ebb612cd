"""A side concern of training: one class, one file, hooks, and a state that goes into every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from persianmind.common.errors import PersianMindError
from persianmind.engine.base import StopLevel
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome


class Callback:
    """Hooks that do nothing; all ranks call them alike, in the order of `callbacks.make_callbacks`.

    A hook that decides something may use only what is the same on every rank, or rank 0's own files.
    """

    name: ClassVar[str]
    """Of its state in checkpoints; unique."""
    skips_steps: ClassVar[bool] = False
    """Whether `should_skip` is to be asked: that costs the gradient norm before each step."""

    def start(self, context: RunContext) -> None:
        """Once, after a checkpoint was restored (or none was there) and before anything is trained."""

    def before_step(self, context: RunContext) -> None:
        """Before the step `context.step + 1`; its sequences may not be built yet."""

    def stop_level(self, context: RunContext) -> StopLevel:
        """Whether this rank wants the run to stop after the coming step."""
        return StopLevel.NONE

    def should_skip(self, loss: float, grad_norm: float) -> bool:
        """Whether the step is to be left out, before the weights move."""
        return False

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        """After the step `context.step`."""

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        """After the last step of a stage; again at each start for stages that were done before it."""

    def interrupt(self, context: RunContext) -> None:
        """Before the run ends in the middle: what must not be lost is made durable."""

    def stop_error(self, context: RunContext) -> PersianMindError | None:
        """What a run that stopped at this callback's own level ends with."""
        return None

    def close(self, context: RunContext) -> None:
        """At the end, however the run ended."""

    def state_dict(self) -> dict[str, Any]:
        """JSON for a checkpoint's manifest; floats that must be exact as hex."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""

"""Tells the energy meter what every step belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persianmind.run.records import Phase
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext


class EnergyCallback(Callback):
    """One mark per step; the meter itself is started before anything else (train/run.py)."""

    name = "energy"

    def start(self, context: RunContext) -> None:
        if context.step:
            context.mark(Phase.START, resumed_step=context.step)

    def before_step(self, context: RunContext) -> None:
        context.mark(Phase.TRAIN, context.plan.stage.name)

"""Stops a run whose energy or CO2 budget is used up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persianmind.common.errors import PersianMindError
from persianmind.energy.budget import Budget
from persianmind.engine.base import StopLevel
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext


class BudgetCallback(Callback):
    """Asks every rank that has a meter before each step; any of them stops all."""

    name = "budget"

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def stop_level(self, context: RunContext) -> StopLevel:
        return StopLevel.BUDGET if self.budget.exceeded(context.joules()) else StopLevel.NONE

    def stop_error(self, context: RunContext) -> PersianMindError | None:
        return self.budget.reached(context.joules(), context.step)

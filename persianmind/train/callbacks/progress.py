"""What the screen shows: a live line on a terminal, a state for a parent that shows it, plain lines
elsewhere, nothing on other ranks."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from persianmind.common.console import LiveLine
from persianmind.common.log import print_state
from persianmind.common.units import clock_text, duration_text
from persianmind.energy.budget import Budget
from persianmind.energy.meter.hardware import JOULES_PER_KWH
from persianmind.energy.show import kwh_text
from persianmind.run.beside_steps import BesideSteps
from persianmind.run.log import read_results
from persianmind.run.records import StepRecord
from persianmind.train.beside import beside_left_s
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

LINE_INTERVAL_S = 10.0
logger = logging.getLogger(__name__)


class ProgressCallback(Callback):
    """Shows stage, step, loss, tokens/s, time left, when the run will be done, and energy.

    What is left are the steps, at the pace since the start, evaluations, samples and export, as far as it is
    known how long they take; where that is not, the steps alone are spoken of, and no clock.
    """

    name = "progress"

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._live: LiveLine | None = None
        self._last_line_s = float("-inf")
        self._started_s = time.monotonic()
        self._first_step: int | None = None
        self._tokens = 0
        self._spent_s = 0.0
        self._beside_s: float | None = 0.0

    def start(self, context: RunContext) -> None:
        if context.is_main:
            context.beside.expected = read_results(context.folder).beside_steps or BesideSteps()
        if context.is_main and sys.stdout.isatty():
            self._live = LiveLine(context.total_steps)

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        if context.record is not None:
            used = self.budget.progress(context.joules())
            last_steps = [plan.last_step for plan in context.plans]
            every_steps = context.recipe.evaluate.every_steps
            self._spent_s = context.beside.spent_s
            self._beside_s = beside_left_s(context.beside.known, context.step, last_steps, every_steps)
            self.show(context.record, context.total_steps, used, tokens_left=context.tokens_left)

    def show(
        self, record: StepRecord, total_steps: int, budget: str = "", *, tokens_left: int | None = None
    ) -> None:
        """Shows one optimizer step.

        Args:
            budget: what of an energy budget is used.
            tokens_left: packed positions still to come, by which the time left is told; None: by steps.
        """
        if self._first_step is None:
            self._first_step, self._started_s = record.step - 1, time.monotonic() - record.seconds
        self._tokens += record.tokens
        text = self.text(record, total_steps, tokens_left) + (f"  {budget}" if budget else "")
        if self._live is not None:
            self._live.show(text, record.step, total_steps)
            return
        now_s = time.monotonic()
        is_last = record.step == total_steps
        if not is_last and record.stage_step != 1 and print_state(text):
            return
        if now_s - self._last_line_s >= LINE_INTERVAL_S or is_last or record.stage_step == 1:
            self._last_line_s = now_s
            logger.info(text)

    def close(self, context: RunContext) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None

    def text(self, record: StepRecord, total_steps: int, tokens_left: int | None = None) -> str:
        """The line for one step; arguments as of `show`."""
        done, left = record.step - (self._first_step or 0), total_steps - record.step
        if tokens_left is not None:  # steps of another stage may have longer sequences
            done, left = self._tokens, tokens_left
        steps_s = (time.monotonic() - self._started_s - self._spent_s) / max(1, done) * left
        parts = [
            f"{record.stage:<12} step {record.step}/{total_steps}",
            "loss not finite" if record.loss is None else f"loss {record.loss:.4f}",
            f"{record.tokens_per_s:,.0f} tokens/s",
        ]
        if self._beside_s is None:
            parts += [f"{duration_text(steps_s)} of steps left"] if steps_s > 0 else []
        elif (left_s := steps_s + self._beside_s) > 0:
            parts.append(f"{duration_text(left_s)} left, until {clock_text(left_s)}")
        if record.joules is not None:
            parts.append(kwh_text(record.joules / JOULES_PER_KWH))
        return "  ".join(parts)

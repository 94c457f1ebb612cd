"""What the screen shows: a live line on a terminal, plain lines elsewhere, nothing on other ranks."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from persianmind.common.console import LiveLine
from persianmind.energy.budget import Budget
from persianmind.run.records import StepRecord
from persianmind.train.callbacks.base import Callback

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

LINE_INTERVAL_S = 10.0
logger = logging.getLogger(__name__)


class ProgressCallback(Callback):
    """Shows stage, step, loss, tokens/s, time left and joules."""

    name = "progress"

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._live: LiveLine | None = None
        self._last_line_s = float("-inf")
        self._started_s = time.monotonic()
        self._first_step: int | None = None

    def start(self, context: RunContext) -> None:
        if context.is_main and sys.stdout.isatty():
            self._live = LiveLine(context.total_steps)

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        if context.record is not None:
            used = self.budget.progress(context.joules())
            self.show(context.record, context.total_steps, used)

    def show(self, record: StepRecord, total_steps: int, budget: str = "") -> None:
        """Shows one optimizer step; `budget`: what of an energy budget is used."""
        if self._first_step is None:
            self._first_step, self._started_s = record.step - 1, time.monotonic() - record.seconds
        text = self.text(record, total_steps) + (f"  {budget}" if budget else "")
        if self._live is not None:
            self._live.show(text, record.step, total_steps)
            return
        now_s = time.monotonic()
        is_last = record.step == total_steps
        if now_s - self._last_line_s >= LINE_INTERVAL_S or is_last or record.stage_step == 1:
            self._last_line_s = now_s
            logger.info(text)

    def close(self, context: RunContext) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None

    def text(self, record: StepRecord, total_steps: int) -> str:
        """The line for one step."""
        done = record.step - (self._first_step or 0)
        per_step_s = (time.monotonic() - self._started_s) / max(1, done)
        left_s = int(per_step_s * (total_steps - record.step))
        parts = [
            f"{record.stage:<12} step {record.step}/{total_steps}",
            "loss not finite" if record.loss is None else f"loss {record.loss:.4f}",
            f"{record.tokens_per_s:,.0f} tokens/s",
            f"{left_s // 60}:{left_s % 60:02d} left",
        ]
        if record.joules is not None:
            parts.append(f"{record.joules:,.0f} J")
        return "  ".join(parts)

"""What the screen shows: a live line on a terminal, plain lines elsewhere, nothing on other ranks."""

from __future__ import annotations

import sys
import time
from typing import Any

from persianmind.common.console import print_line

LINE_INTERVAL_S = 10.0


class Progress:
    """Shows stage, step, loss, tokens/s, time left and joules. `active` is true on rank 0 alone."""

    def __init__(self, *, active: bool, steps: int) -> None:
        self.active = active
        self.steps = steps
        self._live: Any = None
        self._task: Any = None
        self._last_line_s = float("-inf")
        self._started_s = time.monotonic()
        self._first_step: int | None = None
        if active and sys.stdout.isatty():
            self._start_live()

    def say(self, message: str) -> None:
        """One line of text, above the live line where there is one."""
        if not self.active:
            return
        if self._live is not None:
            self._live.console.print(message, highlight=False, markup=False)
        else:
            print_line(message)

    def step(self, values: dict[str, Any], budget: str = "") -> None:
        """Shows one optimizer step (a metrics line); `budget`: what of an energy budget is used."""
        if not self.active:
            return
        if self._first_step is None:
            self._first_step, self._started_s = values["step"] - 1, time.monotonic() - values["seconds"]
        text = self._text(values) + (f"  {budget}" if budget else "")
        if self._live is not None:
            self._live.update(self._task, completed=values["step"], description=text)
            return
        now_s = time.monotonic()
        is_last = values["step"] == self.steps
        if now_s - self._last_line_s >= LINE_INTERVAL_S or is_last or values["stage_step"] == 1:
            self._last_line_s = now_s
            self.say(text)

    def close(self) -> None:
        """Ends the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start_live(self) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._live = RichProgress(TextColumn("{task.description}"), BarColumn(bar_width=20))
        self._task = self._live.add_task("starting", total=self.steps)
        self._live.start()

    def _text(self, values: dict[str, Any]) -> str:
        done = values["step"] - (self._first_step or 0)
        per_step_s = (time.monotonic() - self._started_s) / max(1, done)
        left_s = int(per_step_s * (self.steps - values["step"]))
        parts = [
            f"{values['stage']:<12} step {values['step']}/{self.steps}",
            "loss not finite" if values["loss"] is None else f"loss {values['loss']:.4f}",
            f"{values['tokens_per_s']:,.0f} tokens/s",
            f"{left_s // 60}:{left_s % 60:02d} left",
        ]
        if values.get("joules") is not None:
            parts.append(f"{values['joules']:,.0f} J")
        return "  ".join(parts)

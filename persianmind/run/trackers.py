"""wandb and trackio, beside metrics.jsonl and TensorBoard: both have the same three calls.

A tracker that fails later than its start is dropped with one line; a run never ends because of it.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from persianmind.common.errors import MachineError
from persianmind.recipe import Recipe

PROJECT = "persianmind"
logger = logging.getLogger(__name__)


class Tracker:
    """One run at one service."""

    def __init__(self, name: str, recipe: Recipe, run: Path) -> None:
        """Starts it, offline or online as the service's own environment variables say.

        Raises:
            MachineError: the service refuses to start. That the package is there was checked before.
        """
        self.name = name
        self._module = importlib.import_module(name)
        config = recipe.model_dump(mode="json")
        options: dict[str, Any] = {"project": PROJECT, "name": run.name, "config": config}
        if name == "wandb":
            options["dir"] = str(run)
        try:
            self._run: Any = self._module.init(**options)
        except Exception as error:  # network, login, quota: each service has its own kinds
            raise MachineError(
                f"train.trackers: {name} did not start: {' '.join(str(error).split())[:200]}; log in, set it "
                "offline, or take it out of the list"
            ) from None

    def log(self, values: dict[str, Any]) -> None:
        """Sends the numbers of one metrics line."""
        numbers = {
            name: value
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self._call("log", numbers, step=values["step"])

    def finish(self) -> None:
        """Ends the run at the service."""
        self._call("finish")

    def _call(self, what: str, *arguments: Any, **options: Any) -> None:
        if self._run is None:
            return
        try:
            getattr(self._module, what)(*arguments, **options)
        except Exception as error:
            self._run = None
            why = " ".join(str(error).split())[:200]
            logger.warning("%s dropped, training goes on: %s", self.name, why)


def make_trackers(recipe: Recipe, run: Path) -> list[Tracker]:
    """All trackers of the recipe, started; on rank 0 alone."""
    return [Tracker(name, recipe, run) for name in recipe.train.trackers]

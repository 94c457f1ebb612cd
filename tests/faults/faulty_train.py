"""launcher/train.py with one fault at an exact event: FAULT="kind:rank:step".

kill, term: SIGKILL or SIGTERM to this rank before the step. nan, inf, spike: this rank's loss times that (100
for a spike) at that step alone; nan-on: from that step on. hang: this rank sleeps for ever at the step.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import launcher.train as entry
from persianmind.model.adapted import AdaptedModel
from persianmind.train.engine import Engine

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
FACTORS = {"nan": float("nan"), "nan-on": float("nan"), "inf": float("inf"), "spike": 100.0}


def main() -> None:
    """Installs the fault named by the environment, then runs the ordinary entry."""
    kind, rank, step = os.environ["FAULT"].split(":")
    if int(os.environ.get("RANK", "0")) == int(rank):
        _install(kind, int(step))
    entry.main()


def _install(kind: str, step: int) -> None:
    ordinary_step, ordinary_forward = Engine.step, AdaptedModel.forward
    factor = 1.0

    def faulty_step(self: Engine, *arguments: Any, **options: Any) -> Any:
        nonlocal factor
        # DeepSpeed's counter, restored with a checkpoint: the number of the step about to be done.
        number = self.deepspeed.global_steps + 1
        now = number == step or (kind.endswith("-on") and number > step)
        factor = FACTORS.get(kind, 1.0) if now else 1.0
        if now and kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[kind])
        if now and kind == "hang":
            time.sleep(3600)
        return ordinary_step(self, *arguments, **options)

    def faulty_forward(self: AdaptedModel, *arguments: Any, **options: Any) -> Any:
        loss = ordinary_forward(self, *arguments, **options)
        return loss * factor if factor != 1.0 and self.training else loss

    Engine.step = faulty_step  # type: ignore[method-assign]
    AdaptedModel.forward = faulty_forward  # type: ignore[method-assign]


if __name__ == "__main__":
    main()

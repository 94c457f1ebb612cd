"""launcher/train.py with one fault at an exact event: FAULT="kind:rank:step".

kill: SIGKILL to this rank before the step. term: SIGTERM to this rank before the step. nan: this rank's loss
becomes NaN from the step on. leave-after: SIGKILL to the whole launcher's group after that step's metrics.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import launcher.train as entry
from persianmind.model.adapted import AdaptedModel
from persianmind.train.engine import Engine


def main() -> None:
    """Installs the fault named by the environment, then runs the ordinary entry."""
    kind, rank, step = os.environ["FAULT"].split(":")
    if int(os.environ.get("RANK", "0")) == int(rank):
        _install(kind, int(step))
    entry.main()


def _install(kind: str, step: int) -> None:
    ordinary_step, ordinary_forward = Engine.step, AdaptedModel.forward
    poisoned = False

    def faulty_step(self: Engine, *arguments: Any, **options: Any) -> Any:
        nonlocal poisoned
        # DeepSpeed's counter, restored with a checkpoint: the number of the step about to be done.
        if self.deepspeed.global_steps + 1 >= step:
            if kind == "nan":
                poisoned = True
            elif self.deepspeed.global_steps + 1 == step:
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[kind])
        return ordinary_step(self, *arguments, **options)

    def faulty_forward(self: AdaptedModel, *arguments: Any, **options: Any) -> Any:
        loss = ordinary_forward(self, *arguments, **options)
        return loss * float("nan") if poisoned and self.training else loss

    Engine.step = faulty_step  # type: ignore[method-assign]
    AdaptedModel.forward = faulty_forward  # type: ignore[method-assign]


if __name__ == "__main__":
    main()

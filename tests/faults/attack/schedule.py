"""Which process is killed when: drawn from a seed that is printed, so that a failure can be had again.

PERSIANMIND_FAULT_SEED=17 make faults       another schedule than that of the table in docs/reliability.md
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

from tests.faults.attack.line import BUILDER, LAUNCHER, METER, PHASES

SEED = int(os.environ.get("PERSIANMIND_FAULT_SEED", "1"))
RANKS = ("rank 0", "rank 1")
# The ranks live through the whole line.
LIVES_IN = {BUILDER: ("start",), METER: PHASES[1:-1]}
BY_STEP = ("step", "save", "evaluate")


@dataclass(frozen=True, slots=True)
class Kill:
    """One fault: `victim` gets it in `phase`, `delay` of that phase's usual time after it began.

    progress: of the steps of the run, what must be done before; delay, progress: from 0 to 1.
    """

    phase: str
    victim: str
    delay: float
    progress: float

    def __str__(self) -> str:
        return f"{self.victim} in {self.phase} (+{self.delay:.2f}, steps {self.progress:.0%})"


def draw_kills(seed: int, count: int, *, launcher: bool = False) -> list[Kill]:
    """`count` kills of one run, in the order in which it passes their phases.

    launcher: whether there is one to kill.
    """
    draw = random.Random(seed)
    phases = sorted((draw.choice(PHASES) for _ in range(count)), key=PHASES.index)
    progress = iter(sorted(draw.random() for phase in phases if phase in BY_STEP))
    kills = []
    for phase in phases:
        victims = [*RANKS, *RANKS, *([LAUNCHER] * 2 if launcher else ())]
        victims += [name for name, lives in LIVES_IN.items() if phase in lives for _ in range(2)]
        at = next(progress) if phase in BY_STEP else 0.0
        kills.append(Kill(phase, draw.choice(victims), draw.random(), at))
    return kills

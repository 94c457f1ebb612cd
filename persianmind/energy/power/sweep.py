"""Which power limit gives the most tokens a joule: tried on a run while it trains, so that no work is wasted.

The last watts of a GPU buy little speed. For each limit the sweep waits until the run has done some steps,
counts the joules of the GPUs meanwhile with the same readings as the meter, and puts the old limits back.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from persianmind.common.errors import EnergyError, PowerLimitError
from persianmind.energy.account import read_metrics
from persianmind.energy.power.limits import GpuLimit, restored_limits, set_limit

SETTLE_STEPS = 2  # steps begun under the old limit, or while clocks change, are not counted


@dataclass(frozen=True)
class Trial:
    """What one limit gave over `steps` steps; joules are those of all GPUs of this machine."""

    limit_w: float
    steps: int
    tokens: int
    seconds: float
    joules: float

    @property
    def tokens_per_joule(self) -> float:
        return self.tokens / self.joules

    def row(self) -> dict[str, Any]:
        """For JSON and tables."""
        speed = self.tokens / self.seconds
        return {**asdict(self), "tokens_per_s": speed, "tokens_per_joule": self.tokens_per_joule}


def sweep(
    run: Path, limits_w: Sequence[float], *, steps: int, wait_s: float, gpu_joules: Callable[[], float]
) -> list[Trial]:
    """Tries the limits on the run that is training in `run` now; the old limits come back in any case.

    `gpu_joules` returns a running total of this machine's GPUs. `wait_s` bounds the wait for each limit.

    Raises:
        PowerLimitError: limits cannot be read or set, or a card does not allow one of them.
        EnergyError: the run makes no steps, so there is nothing to measure.
    """
    with _signals_as_exceptions(), restored_limits(run / "energy" / "power-limits.json") as gpus:
        _refuse_outside(limits_w, gpus)
        _next_step(run, -1, wait_s)
        trials = []
        for watts in limits_w:
            for gpu in gpus:
                set_limit(gpu.index, watts)
            trials.append(_try(run, watts, steps, wait_s, gpu_joules))
        return trials


def best(trials: Sequence[Trial]) -> Trial:
    """The most tokens a joule."""
    return max(trials, key=lambda trial: trial.tokens_per_joule)


def default_limits(gpus: Sequence[GpuLimit]) -> list[float]:
    """Five limits from 60% of today's to today's, inside what every card allows."""
    today = min(gpu.watts for gpu in gpus)
    least = max(gpu.least for gpu in gpus)
    return sorted({max(least, float(round(today * share / 100))) for share in (60, 70, 80, 90, 100)})


def _refuse_outside(limits_w: Sequence[float], gpus: Sequence[GpuLimit]) -> None:
    for watts in limits_w:
        for gpu in gpus:
            if not gpu.least <= watts <= gpu.most:
                raise PowerLimitError(
                    f"GPU {gpu.index} allows {gpu.least:g} to {gpu.most:g} W, not {watts:g} W; "
                    "nothing was changed"
                )


def _try(run: Path, watts: float, steps: int, wait_s: float, gpu_joules: Callable[[], float]) -> Trial:
    done = _next_step(run, _count(run), wait_s)
    for _ in range(SETTLE_STEPS - 1):
        done = _next_step(run, done, wait_s)
    begun_s, joules = time.monotonic(), gpu_joules()
    first = done
    while done < first + steps:
        done = _next_step(run, done, wait_s)
    seconds, joules = time.monotonic() - begun_s, gpu_joules() - joules
    if joules <= 0:
        raise EnergyError("the GPUs' energy cannot be read here, so limits cannot be compared")
    counted = list(read_metrics(run))[first:done]
    tokens = sum(int(record.get("useful_tokens", record.get("tokens", 0))) for record in counted)
    return Trial(watts, done - first, tokens, seconds, joules)


def _count(run: Path) -> int:
    return sum(1 for _ in read_metrics(run))


def _next_step(run: Path, done: int, wait_s: float) -> int:
    """Waits until metrics.jsonl has more than `done` lines; returns how many."""
    start, deadline_s = max(done, _count(run)) if done < 0 else done, time.monotonic() + wait_s
    while (count := _count(run)) <= start:
        if time.monotonic() > deadline_s:
            raise EnergyError(
                f"{run} made no step in {wait_s:g} s; start the training first and sweep while it runs"
            )
        time.sleep(0.05)
    return count


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGTERM ends the sweep the way Ctrl-C does, so that the limits come back."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def gpu_counter() -> Callable[[], float]:
    """A running total of the joules of this machine's GPUs, read as the meter reads them.

    Raises:
        EnergyError: codecarbon finds no GPU here.
    """
    from persianmind.energy.meter.hardware import Hardware

    hardware = Hardware("IRN")
    hardware.start()
    total_j, last_s = 0.0, time.monotonic()

    def read() -> float:
        nonlocal total_j, last_s
        now_s = time.monotonic()
        readings, failures = hardware.read(now_s - last_s)
        last_s = now_s
        if failures:
            raise EnergyError(f"GPU energy cannot be read: {failures}")
        total_j += sum(reading.joules for reading in readings if reading.component.startswith("gpu"))
        return total_j

    return read

"""Which power limit gives the most tokens per joule: tried on a run while it trains: no work is wasted.

The last watts of a GPU buy little speed. For each limit the sweep waits until the run has done some steps,
counts the joules of the GPUs meanwhile with the same readings as the meter, and puts the old limits back.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from persianmind.common.errors import EnergyError, PowerLimitError
from persianmind.common.poll import wait_until
from persianmind.energy.power.limits import GpuLimit, restored_limits, set_limit
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_steps
from persianmind.run.records import StepRecord, parse_record

POLL_S = 0.05
TAIL_BYTES = 1 << 16  # more than some lines of metrics.jsonl
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

    def as_json(self) -> dict[str, Any]:
        """For JSON and tables."""
        speed = self.tokens / self.seconds
        return {**asdict(self), "tokens_per_s": speed, "tokens_per_joule": self.tokens_per_joule}


def sweep(
    folder: RunFolder,
    limits_w: Sequence[float],
    *,
    steps: int,
    wait_s: float,
    gpu_joules: Callable[[], float],
) -> list[Trial]:
    """Tries the limits on the run that is training in `folder` now; the old limits come back in any case.

    Args:
        steps: optimizer steps counted per limit.
        wait_s: longest wait for one step.
        gpu_joules: returns a running total of this machine's GPUs.

    Raises:
        PowerLimitError: limits cannot be read or set, or a GPU does not allow one of them.
        EnergyError: the run makes no steps, so there is nothing to measure.
    """
    with _signals_as_exceptions(), restored_limits(folder.power_limits) as gpus:
        _refuse_outside(limits_w, gpus)
        _next_step(folder, last_step(folder), wait_s)
        trials = []
        for watts in limits_w:
            for gpu in gpus:
                set_limit(gpu.index, watts)
            trials.append(_try(folder, watts, steps, wait_s, gpu_joules))
        return trials


def best(trials: Sequence[Trial]) -> Trial:
    """The most tokens per joule."""
    return max(trials, key=lambda trial: trial.tokens_per_joule)


def default_limits(gpus: Sequence[GpuLimit]) -> list[float]:
    """Five limits from 60% of today's to today's, inside what every GPU allows."""
    today = min(gpu.watts for gpu in gpus)
    least = max(gpu.least for gpu in gpus)
    return sorted({max(least, float(round(today * percent / 100))) for percent in (60, 70, 80, 90, 100)})


def _refuse_outside(limits_w: Sequence[float], gpus: Sequence[GpuLimit]) -> None:
    for watts in limits_w:
        for gpu in gpus:
            if not gpu.least <= watts <= gpu.most:
                raise PowerLimitError(
                    f"GPU {gpu.index} allows {gpu.least:g} to {gpu.most:g} W, not {watts:g} W; "
                    "nothing was changed"
                )


def _try(
    folder: RunFolder, watts: float, steps: int, wait_s: float, gpu_joules: Callable[[], float]
) -> Trial:
    done = last_step(folder)
    for _ in range(SETTLE_STEPS):
        done = _next_step(folder, done, wait_s)
    begun_s, joules = time.monotonic(), gpu_joules()
    first = done
    while done < first + steps:
        done = _next_step(folder, done, wait_s)
    seconds, joules = time.monotonic() - begun_s, gpu_joules() - joules
    if joules <= 0:
        raise EnergyError("the GPUs' energy cannot be read here, so limits cannot be compared")
    tokens = sum(record.useful_tokens for record in read_steps(folder) if first < record.step <= done)
    return Trial(watts, done - first, tokens, seconds, joules)


def last_step(folder: RunFolder) -> int:
    """The newest step in metrics.jsonl, 0 before the first; reads only the end of the file."""
    if not folder.metrics.is_file():
        return 0
    with folder.metrics.open("rb") as handle:
        handle.seek(max(0, folder.metrics.stat().st_size - TAIL_BYTES))
        lines = handle.read().splitlines()
    found = (parse_record(line, StepRecord) for line in reversed(lines))
    return next((record.step for record in found if record is not None), 0)


def _next_step(folder: RunFolder, done: int, wait_s: float) -> int:
    """Waits until a step after `done` is in metrics.jsonl; returns the newest."""
    found = wait_until(
        lambda: step if (step := last_step(folder)) > done else None, timeout_s=wait_s, interval_s=POLL_S
    )
    if found is None:
        raise EnergyError(
            f"{folder} made no step in {wait_s:g} s; start the training first and sweep while it runs"
        )
    return found


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

    hardware = Hardware()
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

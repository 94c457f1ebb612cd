"""The GPUs of a run over all attempts: limits, clocks, what held them down, Xid errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from persianmind.energy.ledger import Attempt, Ledger
from persianmind.energy.meter.meanings import xid_meaning


@dataclass
class _GpuSums:
    """One GPU of one node, added up."""

    samples: int = 0
    clock_samples: int = 0
    clocks_mhz: float = 0.0
    throttled: dict[str, int] = field(default_factory=dict)
    temperature_c: float | None = None
    limits_w: list[float] = field(default_factory=list)
    default_limit_w: float | None = None
    max_clock_mhz: int | None = None
    xids: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self, node: str, gpu: str) -> dict[str, Any]:
        return {
            "node": node,
            "gpu": gpu,
            "power_limit_w": [min(self.limits_w), max(self.limits_w)] if self.limits_w else None,
            "default_limit_w": self.default_limit_w,
            "clock_mhz": self.clocks_mhz / self.clock_samples if self.clock_samples else None,
            "max_clock_mhz": self.max_clock_mhz,
            "temperature_c": self.temperature_c,
            "samples": self.samples,
            "throttled_ratio": {reason: n / self.samples for reason, n in self.throttled.items()},
            "xids": self.xids,
        }


def gpu_summary(ledger: Ledger) -> list[dict[str, Any]]:
    """One object per GPU and node, as JSON; [] where no GPU was watched.

    power_limit_w: lowest and highest in force. throttled_ratio: by reason, the part of the samples in which
    the clocks were held down. xids: {time, xid, meaning} in the order they came.
    """
    sums: dict[tuple[str, str], _GpuSums] = {}
    for attempt in ledger.attempts:
        _add(attempt, sums)
    return [one.as_json(node, gpu) for (node, gpu), one in sums.items()]


def _add(attempt: Attempt, sums: dict[tuple[str, str], _GpuSums]) -> None:
    def of(gpu: str) -> _GpuSums:
        return sums.setdefault((attempt.node, gpu), _GpuSums())

    for facts in attempt.gpus:
        one = of(facts.gpu)
        one.default_limit_w, one.max_clock_mhz = facts.default_limit_w, facts.max_clock_mhz
        one.limits_w += [] if facts.power_limit_w is None else [facts.power_limit_w]
    for interval in (gpu for sample in attempt.samples for gpu in sample.gpus):
        one = of(interval.gpu)
        one.samples += interval.samples
        if interval.clock_mhz is not None:
            one.clock_samples += interval.samples
            one.clocks_mhz += interval.clock_mhz * interval.samples
        for reason, count in interval.throttled.items():
            one.throttled[reason] = one.throttled.get(reason, 0) + count
        if interval.temperature_c is not None:
            one.temperature_c = max(one.temperature_c or 0.0, interval.temperature_c)
        one.limits_w += [] if interval.power_limit_w is None else [interval.power_limit_w]
    for note in attempt.xids:
        assert note.xid is not None
        found = {"time": note.time, "xid": note.xid, "meaning": xid_meaning(note.xid)}
        of(note.gpu or "a GPU").xids.append(found)

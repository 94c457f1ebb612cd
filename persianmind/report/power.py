"""Power over the time that was counted."""

from __future__ import annotations

from itertools import groupby

from persianmind.energy.ledger import Attempt
from persianmind.report.charts import Chart, Series, draw_wide
from persianmind.report.drawing import Drawing
from persianmind.report.read import RunFiles
from persianmind.report.series import Point, duration_unit
from persianmind.run.energy_records import EnergySample

MAX_RESTARTS, MAX_STAIRS = 6, 60  # two points a stair: no more than a chart draws one by one
TONES = ("t-spent", "t-plum", "t-third", "t-olive", "t-soft")


def power_chart(run: RunFiles) -> list[Drawing]:
    """Watts over the time of counting: the parts stacked for one node, a line per node for several."""
    attempts = run.ledger.attempts
    unit, unit_s = duration_unit(max((_seconds(run, node) for node in run.ledger.nodes), default=0.0))
    if len(run.ledger.nodes) == 1:
        samples = [sample for attempt in attempts for sample in attempt.samples]
        watts_by_group = _watts_by_group(samples)
        series = [
            Series(name, _stairs(samples, watts, unit_s), tone)
            for (name, watts), tone in zip(watts_by_group.items(), TONES, strict=False)
        ]
        marks = [(at, "started again") for at in _restarts(attempts, unit_s)][:MAX_RESTARTS]
        return draw_wide(
            Chart("Power by part", series, x_name=unit, y_name="watts", marks=marks, stacked=True)
        )
    lines = []
    for index, (node, group) in enumerate(groupby(attempts, key=lambda attempt: attempt.node)):
        samples = [sample for attempt in group for sample in attempt.samples]
        watts = [sample.joules / sample.seconds for sample in samples]
        lines.append(Series(node, _stairs(samples, watts, unit_s), TONES[index % len(TONES)]))
    return draw_wide(Chart("Power by node", lines, x_name=unit, y_name="watts", from_zero=True))


def _seconds(run: RunFiles, node: str) -> float:
    attempts = (attempt for attempt in run.ledger.attempts if attempt.node == node)
    return sum(sample.seconds for attempt in attempts for sample in attempt.samples)


def _watts_by_group(samples: list[EnergySample]) -> dict[str, list[float]]:
    """GPUs together, then CPU, memory and whatever else there is; the same length for each."""
    names = {_group(reading.component) for s in samples for reading in s.readings}
    ordered = sorted(names, key=lambda name: (name != "GPUs", name != "CPU", name))
    watts: dict[str, list[float]] = {name: [0.0] * len(samples) for name in ordered}
    for index, sample in enumerate(samples):
        for reading in sample.readings:
            watts[_group(reading.component)][index] += reading.joules / sample.seconds
    return watts


def _group(component: str) -> str:
    if component.startswith("gpu"):
        return "GPUs"
    return {"cpu": "CPU", "ram": "memory"}.get(component, component)


def _stairs(samples: list[EnergySample], watts: list[float], unit_s: float) -> list[Point]:
    """Two points per piece, as power is a mean over an interval; a long run is averaged into fewer pieces."""
    size = max(1, -(-len(samples) // MAX_STAIRS))
    points: list[Point] = []
    at = 0.0
    for start in range(0, len(samples), size):
        seconds = [s.seconds for s in samples[start : start + size]]
        joules = sum(w * t for w, t in zip(watts[start : start + size], seconds, strict=True))
        mean = joules / sum(seconds)
        points += [(at, mean), (at + sum(seconds) / unit_s, mean)]
        at += sum(seconds) / unit_s
    return points


def _restarts(attempts: list[Attempt], unit_s: float) -> list[float]:
    at, found = 0.0, []
    for attempt in attempts[:-1]:
        at += sum(s.seconds for s in attempt.samples) / unit_s
        found.append(at)
    return found

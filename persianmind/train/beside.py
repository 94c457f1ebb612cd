"""What a run does beside its steps and how long that takes: scores after each stage and within, the export.

Measured as it happens; before the first time, what the estimate before step 1 or an earlier start came to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from persianmind.run.beside_steps import BesideSteps


@dataclass
class BesideTimes:
    """Of this start. expected: of the estimate, or of an earlier start. ends_s, within_s: seconds of each end
    of a stage, and of each measurement within one, so far."""

    expected: BesideSteps = field(default_factory=BesideSteps)
    ends_s: list[float] = field(default_factory=list)
    within_s: list[float] = field(default_factory=list)

    @property
    def spent_s(self) -> float:
        """All that was measured."""
        return sum(self.ends_s) + sum(self.within_s)

    @property
    def known(self) -> BesideSteps:
        """Means of what was measured, else what is expected."""
        return BesideSteps(
            stage_end_s=_mean(self.ends_s, self.expected.stage_end_s),
            within_s=_mean(self.within_s, self.expected.within_s),
            export_s=self.expected.export_s,
        )


def beside_left_s(
    known: BesideSteps, step: int, last_steps: Iterable[int], every_steps: int | None
) -> float | None:
    """Seconds of everything beside the steps that comes after `step`, what follows on it at once included;
    None where a part of it is not known.

    Args:
        last_steps: of each stage.
        every_steps: of `evaluate.every_steps`.
    """
    ends = sorted(last_steps)
    within = 0
    if every_steps is not None and ends:
        within = ends[-1] // every_steps - (step - 1) // every_steps
        within -= sum(last >= step and last % every_steps == 0 for last in ends)
    coming = (
        (sum(last >= step for last in ends), known.stage_end_s),
        (within, known.within_s),
        (1, known.export_s),
    )
    total = 0.0
    for count, seconds in coming:
        if count and seconds is None:
            return None
        total += count * (seconds or 0.0)
    return total


def _mean(measured: list[float], expected: float | None) -> float | None:
    return sum(measured) / len(measured) if measured else expected

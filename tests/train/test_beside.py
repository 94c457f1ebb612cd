"""When a run will be done: what comes beside its steps, counted by hand."""

from __future__ import annotations

import pytest

from persianmind.run.beside_steps import BesideSteps
from persianmind.train.beside import BesideTimes, beside_left_s

KNOWN = BesideSteps(stage_end_s=100.0, within_s=10.0, export_s=1.0)
STAGES = [8, 11, 12]


@pytest.mark.parametrize(
    ("step", "every_steps", "seconds"),
    [
        (1, None, 301.0),
        (8, None, 301.0),  # the end of the first stage comes next
        (9, None, 201.0),
        (12, None, 101.0),
        (1, 3, 331.0),  # at 3, 6 and 9; 12 is the end of a stage
        (6, 3, 321.0),  # the one at 6 comes next
        (7, 3, 311.0),
        (10, 3, 201.0),
        (1, 4, 311.0),  # at 4; 8 and 12 are ends
    ],
)
def test_what_is_left(step: int, every_steps: int | None, seconds: float) -> None:
    assert beside_left_s(KNOWN, step, STAGES, every_steps) == seconds


def test_nothing_is_said_where_a_part_is_not_known() -> None:
    assert beside_left_s(BesideSteps(export_s=1.0), 5, STAGES, None) is None
    assert beside_left_s(BesideSteps(stage_end_s=100.0), 5, STAGES, None) is None
    without = BesideSteps(stage_end_s=100.0, export_s=1.0)
    assert beside_left_s(without, 1, STAGES, 3) is None
    assert beside_left_s(without, 10, STAGES, 3) == 201.0  # none is left of what is not known


def test_what_was_measured_stands_before_what_was_expected() -> None:
    times = BesideTimes(KNOWN)
    assert times.known == KNOWN and times.spent_s == 0.0
    times.ends_s += [20.0, 40.0]
    assert times.known == BesideSteps(stage_end_s=30.0, within_s=10.0, export_s=1.0)
    times.within_s.append(4.0)
    assert times.known.within_s == 4.0 and times.spent_s == 64.0

"""An energy budget: a save at the limit, exit code 6, then a higher one and the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.helpers import assert_same_run, newest_step
from tests.support.launch import Launched

pytestmark = pytest.mark.integration


def test_a_budget_ends_the_run_with_a_checkpoint_and_a_higher_one_goes_on(
    fleet: Fleet, fresh: Path, tiny_run: Launched
) -> None:
    stopped = fleet.run(fresh, "energy.budget_kwh=1e-7")  # 0.36 J
    assert stopped.code == 6, stopped.text
    (line,) = stopped.errors
    # At the first step at which the meter, which starts beside the run, has counted anything.
    step = stopped.metrics[-1]["step"]
    assert "the energy budget of 0.000 kWh is used up" in line and f"at step {step};" in line
    assert "estimate: about" in stopped.text
    assert newest_step(fresh) == step
    again = fleet.run(fresh, "energy.budget_kwh=1")
    assert again.code == 0, again.text
    assert "resuming from" in again.text and " of 1.00 kWh" in again.text
    assert_same_run(again, tiny_run)

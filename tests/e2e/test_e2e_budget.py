"""An energy budget through the real launcher: a save at the limit, then a higher one and the same losses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.launching import Launched, launch

pytestmark = pytest.mark.slow
PREPARED = ("data", "vocab", "prepared.json", "recipe.yaml")


def test_a_budget_ends_the_run_with_a_checkpoint_and_a_higher_one_goes_on(
    tiny_run: Launched, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in PREPARED:
        source = tiny_run.run / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, run / name)
    command = ["--recipe", "tiny", "--output", str(run)]
    stopped = launch(*command, "energy.budget_kwh=1e-7", ranks=2)  # 0.36 J
    assert stopped.code == 6, stopped.text
    (line,) = stopped.errors
    # At the first step at which the meter, which starts beside the run, has counted anything.
    step = stopped.metrics[-1]["step"]
    assert "the energy budget of 0.000 kWh is used up" in line and f"at step {step};" in line
    assert "forecast: about" in stopped.text
    assert f"step-{step}" in {path.name for path in (run / "checkpoints").glob("step-*")}
    again = launch(*command, "energy.budget_kwh=1", ranks=2)
    assert again.code == 0, again.text
    assert "resuming from" in again.text and " of 1.00 kWh" in again.text
    losses = [line["loss_hex"] for line in again.metrics]
    assert losses == [line["loss_hex"] for line in tiny_run.metrics]

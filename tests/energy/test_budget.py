from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.errors import EnergyError
from persianmind.energy.budget import Budget, limit_kwh
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from tests.energy.ledgers import sample, write


def test_the_tighter_of_two_budgets_counts() -> None:
    options = Energy(budget_kwh=10, budget_kg_co2=1, pue=1.25, intensity_g_per_kwh=400)
    assert limit_kwh(options) == pytest.approx(2.0)  # 1000 g / (1.25 x 400 g/kWh)
    assert limit_kwh(options.model_copy(update={"budget_kwh": 0.5})) == 0.5
    assert limit_kwh(Energy()) is None


def test_a_co2_budget_without_a_known_grid_is_refused_before_anything_runs() -> None:
    with pytest.raises(EnergyError, match="QQQ"):
        limit_kwh(Energy(budget_kg_co2=1, country_iso="QQQ"))


def test_earlier_attempts_have_used_their_part(tmp_path: Path) -> None:
    write(tmp_path, "a", [sample("1", "a", "pretrain", (1, 2), {"gpu0": 3.6e6})])
    write(tmp_path, "b", [sample("1", "b", "pretrain", (1, 2), {"gpu0": 1.8e6})])
    budget = Budget.of(Energy(budget_kwh=2), RunFolder(tmp_path))
    assert budget.remaining_kwh(0) == pytest.approx(0.5)
    assert not budget.exceeded(1.79e6) and budget.exceeded(1.8e6)
    assert budget.progress(0) == "1.50 of 2.00 kWh"
    assert "step 7" in str(budget.reached(1.8e6, 7)) and "budget_kwh" in str(budget.reached(1.8e6, 7))
    assert budget.shortfall(0.4) is None
    assert "50%" in str(budget.shortfall(1.0))


def test_without_a_budget_nothing_ever_stops(tmp_path: Path) -> None:
    budget = Budget.of(Energy(), RunFolder(tmp_path))
    assert not budget.exceeded(1e12) and budget.remaining_kwh(1e12) is None
    assert budget.progress(1e12) == "" and budget.shortfall(1e9) is None

from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import sample, write

from persianmind.common.errors import EnergyError
from persianmind.energy.budget import Budget, limit_kwh
from persianmind.energy.co2.card import co2_eq_emissions, hardware_of
from persianmind.energy.ledger import read_ledger, summarise
from persianmind.recipe import Energy


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
    budget = Budget.of(Energy(budget_kwh=2), tmp_path)
    assert budget.remaining_kwh(0) == pytest.approx(0.5)
    assert not budget.exceeded(1.79e6) and budget.exceeded(1.8e6)
    assert budget.progress(0) == "1.50 of 2.00 kWh"
    assert "step 7" in str(budget.reached(1.8e6, 7)) and "budget_kwh" in str(budget.reached(1.8e6, 7))
    assert budget.forecast(0.4) is None
    assert "50%" in str(budget.forecast(1.0))


def test_without_a_budget_nothing_ever_stops(tmp_path: Path) -> None:
    budget = Budget.of(Energy(), tmp_path)
    assert not budget.exceeded(1e12) and budget.remaining_kwh(1e12) is None
    assert budget.progress(1e12) == "" and budget.forecast(1e9) is None


def test_the_model_card_block_has_the_hubs_keys_and_grams(tmp_path: Path) -> None:
    write(tmp_path, "a", [sample("1", "a", "pretrain", (1, 2), {"gpu0": 3.6e6})])
    summary = summarise(read_ledger(tmp_path), Energy(intensity_g_per_kwh=494, pue=1.4))
    hardware = hardware_of([{"gpu_model": "4 x RTX 3090"}, {"cpu_model": "EPYC", "cpu_count": 2}])
    block = co2_eq_emissions(summary, location="Tehran, Iran", hardware=hardware)
    assert block is not None
    assert set(block) == {
        "emissions", "source", "training_type", "geographical_location", "hardware_used"
    }  # fmt: skip
    assert block["emissions"] == pytest.approx(494 * 1.4)
    assert block["hardware_used"] == "4 x RTX 3090 + EPYC (2 threads)"
    unknown = summarise(read_ledger(tmp_path), Energy(country_iso="QQQ"))
    assert co2_eq_emissions(unknown, location="-", hardware="-") is None

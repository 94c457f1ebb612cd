from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.energy.co2.card import co2_eq_emissions
from persianmind.energy.ledger import read_ledger
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from tests.energy.ledgers import sample, write


def test_the_model_card_block_has_the_hubs_keys_and_grams(tmp_path: Path) -> None:
    write(tmp_path, "a", [sample("1", "a", "pretrain", (1, 2), {"gpu0": 3.6e6})])
    ledger = read_ledger(RunFolder(tmp_path))
    summary = summarise(ledger, Energy(intensity_g_per_kwh=494, pue=1.4))
    block = co2_eq_emissions(summary, location="Tehran, Iran", hardware="4 x RTX 3090")
    assert block is not None
    assert set(block) == {
        "emissions", "source", "training_type", "geographical_location", "hardware_used"
    }  # fmt: skip
    assert block["emissions"] == pytest.approx(494 * 1.4)
    assert block["hardware_used"] == "4 x RTX 3090"
    assert "100% measured" in block["source"]
    unknown = summarise(ledger, Energy(country_iso="QQQ"))
    assert co2_eq_emissions(unknown, location="-", hardware="-") is None

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from persianmind.common.errors import EnergyError
from persianmind.energy.co2.intensity import country_average, read_curve, resolve_intensity
from persianmind.energy.co2.published import PUBLISHED, co2_g
from persianmind.energy.ledger import read_ledger
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from tests.energy.ledgers import sample, write


def curve(path: Path, hours: range = range(24), value: str = "{hour}") -> Path:
    rows = [f"{hour},{value.format(hour=100 + hour)}" for hour in hours]
    path.write_text("\n".join(["hour_utc,g_per_kwh", *rows]) + "\n")
    return path


def test_the_recipes_value_wins_over_the_table() -> None:
    found = resolve_intensity(
        Energy(intensity_g_per_kwh=494, intensity_source="Tavanir", intensity_year=2022)
    )
    assert (found.g_per_kwh, found.source, found.year) == (494, "Tavanir", 2022)


def test_the_table_is_read_without_importing_codecarbon() -> None:
    code = (
        "import sys; from persianmind.energy.co2.intensity import country_average as c; "
        "print(c('IRN').g_per_kwh, 'codecarbon' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["655.125", "False", "False"]


def test_the_table_is_the_one_codecarbon_itself_uses() -> None:
    from codecarbon.input import DataSource

    table = DataSource().get_global_energy_mix_data()
    for country in ("IRN", "DEU", "FRA", "USA"):
        assert country_average(country).g_per_kwh == table[country]["carbon_intensity"]


def test_an_unknown_country_is_one_clear_line() -> None:
    with pytest.raises(EnergyError, match=r"'QQQ'.*intensity_g_per_kwh"):
        country_average("QQQ")


def test_a_curve_weighs_each_hour_by_its_use(tmp_path: Path) -> None:
    curve(tmp_path / "day.csv")
    options = Energy(intensity_curve_csv="day.csv")
    lines = [
        sample("1", "a", "pretrain", (1, 1), {"gpu0": 3.6e6}, time="2026-03-01T02:10:00+00:00"),
        sample("1", "a", "pretrain", (2, 2), {"gpu0": 7.2e6}, time="2026-03-01T05:10:00+03:30"),  # 01:40 UTC
    ]
    write(tmp_path, "a", lines)
    summary = summarise(read_ledger(RunFolder(tmp_path)), options, folder=tmp_path)
    assert summary["co2_g"] == pytest.approx(1 * 102 + 2 * 101)
    assert summary["intensity_g_per_kwh"] == pytest.approx((102 + 202) / 3)
    assert summary["intensity"]["by_hour"] is True


@pytest.mark.parametrize(
    ("hours", "value", "word"),
    [
        (range(23), "{hour}", "incomplete"),
        (range(24), "much", "not understood"),
        (range(24), "-1", "incomplete"),
    ],
)
def test_a_bad_curve_is_one_clear_line(tmp_path: Path, hours: range, value: str, word: str) -> None:
    path = curve(tmp_path / "day.csv", hours, value)
    with pytest.raises(EnergyError, match=word):
        read_curve(path, Energy())
    with pytest.raises(EnergyError, match="cannot read"):
        read_curve(tmp_path / "none.csv", Energy())


def test_published_runs_agree_with_their_own_terms() -> None:
    """Where a source gives power, PUE and intensity, its figure must follow from them."""
    checked = 0
    for run in PUBLISHED:
        assert run.source
        if run.gpu_watts and run.pue and run.intensity_g_per_kwh:
            derived_g = co2_g(run.gpu_hours * run.gpu_watts / 1000, run.pue, run.intensity_g_per_kwh)
            assert derived_g == pytest.approx(run.co2_kg * 1000, rel=0.01), run.name
            checked += 1
    assert checked == 2

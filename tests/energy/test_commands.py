from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persianmind.common.errors import PowerLimitError, RunFolderError
from persianmind.energy.commands import app
from tests.energy.ledgers import sample, start, step_line, stop, use_fake_nvml, write

KEYS = {"kwh", "co2_g", "pue", "intensity_g_per_kwh", "measured_ratio", "wasted_kwh", "by_stage", "by_node",
        "by_component", "comparison"}  # fmt: skip


def a_run(folder: Path, joules: float = 3.6e6) -> Path:
    lines = [start("1", "box"), sample("1", "box", "pretrain", (1, 2), {"gpu0": joules}), stop("1", "box")]
    write(folder, "box", lines)
    metrics = "".join(step_line(step, 500_000) for step in (1, 2, 2))
    (folder / "metrics.jsonl").write_text(metrics + step_line(3, 500_000)[:40])
    return folder


def run_command(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_json_is_one_object_with_the_promised_keys(tmp_path: Path) -> None:
    found = json.loads(run_command("report", str(a_run(tmp_path)), "--json"))
    assert found.keys() >= KEYS
    assert found["kwh"] == pytest.approx(1.0)
    assert found["per_million_tokens"] == {
        "count": 1_000_000,
        "kwh": pytest.approx(1),
        "co2_g": None,
    }
    assert any("recipe.yaml is missing" in problem for problem in found["problems"])


def test_without_a_grid_co2_is_the_span_over_all_countries_with_the_line_that_sets_it(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    found = json.loads(run_command("report", str(run), "--json"))
    assert found["co2_g"] is None and found["co2_span_g"] == [pytest.approx(20), pytest.approx(1306.025)]
    assert any("set energy.country_iso" in note for note in found["notes"])
    assert [(one["role"], one["country"]) for one in found["grids"]] == [
        ("cleanest", "Lesotho"), ("dirtiest", "Turkmenistan"),
    ]  # fmt: skip
    shown = run_command("report", str(run))
    assert "from the cleanest grid (Lesotho)" in " ".join(shown.split())


def test_the_papers_figures_stand_in_a_command_of_their_own(tmp_path: Path) -> None:
    found = json.loads(run_command("published", "--json"))
    paper = next(one for one in found["runs"] if "PersianMind" in one["name"])
    assert paper["recomputed_co2_g"] == pytest.approx(232_380, rel=1e-3)
    assert "our inference" in run_command("published")
    assert "494" not in run_command("report", str(a_run(tmp_path)))


def test_runs_are_put_beside_each_other(tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "one"), a_run(tmp_path / "two", 7.2e6)
    found = json.loads(run_command("report", str(one), "--compare", str(two), "--json"))
    assert found["runs"][str(two)]["kwh"] == pytest.approx(2.0)
    shown = run_command("report", str(one), "--compare", str(two))
    assert "1.00 kWh" in shown and "2.00 kWh" in shown and "not counted:" in shown


def test_csv_adds_up(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run_command("report", str(a_run(tmp_path)), "--csv"))))
    for group in ("stage", "node", "component"):
        assert sum(float(row["kwh"]) for row in rows if row["group"] == group) == pytest.approx(1.0)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunFolderError):
            CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False)


def test_the_sweep_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_nvml(monkeypatch, tmp_path / "gpus.json", [300.0], limits=[350.0])
    with pytest.raises(PowerLimitError, match=r"GPU 0 350 W.*--yes"):
        CliRunner().invoke(app, ["sweep", str(a_run(tmp_path / "run"))], catch_exceptions=False)


def test_the_commands_import_nothing_heavy() -> None:
    code = "import sys, persianmind.energy.commands, persianmind.report.commands; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "codecarbon", "pandas", "pydantic"} & set(done.stdout.split())

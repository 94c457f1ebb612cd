"""The table of the GPUs on the page and on a terminal; imitated GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persianmind.energy.account import account
from persianmind.energy.show import show_account
from persianmind.report.page import write_report
from persianmind.run.energy_records import (
    EnergyLine,
    EnergyNote,
    EnergySample,
    EnergyStart,
    GpuFacts,
    GpuInterval,
)
from persianmind.run.folder import RunFolder
from tests.report.built_run import build_run, ledger, write_lines
from tests.report.parsed import parse, sections


def watched(line: EnergyLine) -> EnergyLine:
    """A line of the built run, of a meter that watched its two GPUs: the second was hot half of the time."""
    if isinstance(line, EnergyStart):
        facts = [
            GpuFacts(gpu=f"gpu{i}", power_limit_w=280, default_limit_w=350, max_clock_mhz=2100)
            for i in (0, 1)
        ]
        return line.model_copy(update={"gpus": facts})
    if isinstance(line, EnergySample):
        cool = GpuInterval(gpu="gpu0", samples=60, clock_mhz=1800, temperature_c=61, power_limit_w=280)
        hot = GpuInterval(
            gpu="gpu1", samples=60, throttled={"temperature": 30, "power limit": 6}, clock_mhz=1200,
            temperature_c=84, power_limit_w=250,
        )  # fmt: skip
        return line.model_copy(update={"gpus": [cool, hot]})
    return line


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = build_run(tmp_path / "run")
    lines = [watched(line) for line in ledger("box1")]
    head: dict[str, Any] = {"time": lines[-1].time, "monotonic_s": 0.0, "attempt": "a2", "node": "box1"}
    lines.append(EnergyNote(**head, missing=False, message="gpu1: Xid 79: ...", gpu="gpu1", xid=79))
    write_lines(folder.ledger("box1"), lines)
    return folder


def test_imitated_gpus_stand_in_the_report_with_limits_throttling_and_xids(run: RunFolder) -> None:
    table = sections(parse(write_report(run.path)))["cost"].panel("GPUs").table()
    assert table["gpu0"] == ["box1", "280 of 350 W", "1,800 of 2,100 MHz", "61 °C", "never", "none"]
    node, limit, clock, hottest, held, xids = table["gpu1"]
    assert (node, limit, clock, hottest) == ("box1", "250 to 280 of 350 W", "1,200 of 2,100 MHz", "84 °C")
    assert held == "50% temperature; 10% power limit"
    assert xids.startswith("79: the GPU has fallen off the bus")


def test_imitated_gpus_stand_in_the_account_for_scripts_and_terminals(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = account(run)
    first, second = summary["gpus"]
    assert (first["power_limit_w"], first["throttled_ratio"], first["xids"]) == ([280.0, 280.0], {}, [])
    assert second["throttled_ratio"] == {"temperature": 0.5, "power limit": 0.1}
    assert [one["xid"] for one in second["xids"]] == [79]
    assert any("Xid 79" in note for note in summary["notes"]) and summary["problems"] == []
    show_account(run, summary, {})
    assert "gpu1" in capsys.readouterr().out


def test_a_ledger_of_a_meter_that_watched_no_gpu_has_no_table(tmp_path: Path) -> None:
    page = sections(parse(write_report(build_run(tmp_path / "run").path)))["cost"]
    assert "GPUs" not in page.headings


def test_imitated_gpu_that_hides_everything_is_a_line_of_dashes(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    bare = [
        line.model_copy(update={"gpus": [GpuFacts(gpu="gpu0")]}) if isinstance(line, EnergyStart) else line
        for line in ledger("box1")
    ]
    write_lines(folder.ledger("box1"), bare)
    table = sections(parse(write_report(folder.path)))["cost"].panel("GPUs").table()
    assert table["gpu0"] == ["box1", "-", "-", "-", "-", "none"]

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from persianmind.common.checksum import write_checked
from persianmind.common.errors import RunFolderError, UsageError
from persianmind.report.commands import report
from persianmind.report.compare import MAX_RUNS, write_comparison
from persianmind.run.folder import RunFolder
from persianmind.run.log import add_evaluation
from tests.report.built_run import build_run, score
from tests.report.parsed import Node, gaps, parse, sections


def two_runs(tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """The second with another seed, another learning rate, and a better last stage."""
    one = build_run(tmp_path / "one")
    two = build_run(tmp_path / "two", seed=9, train={"learning_rate": 1e-3})
    add_evaluation(two, [score("instruct", "fa", 0.9)])
    return one, two


def compared(tmp_path: Path, *runs: RunFolder) -> Node:
    return parse(write_comparison([run.path for run in runs], tmp_path / "comparison.html"))


def test_quality_stands_beside_energy_tokens_and_time(tmp_path: Path) -> None:
    page = compared(tmp_path, *two_runs(tmp_path))
    table = sections(page)["comparison"].table()
    assert list(table) == ["one built-run, finished", "two built-run, finished"]
    persian, english, energy, co2, tokens, time = table["two built-run, finished"]
    assert persian == "1.912 → 0.900 52.9% fewer, beyond the intervals"
    assert english == "0.987 → 0.989 unchanged, within the intervals"  # its last stage was scored without
    assert " Wh measured + " in energy and co2.endswith(" g")
    assert (tokens, time) == ("1,474,560", "1 h 3 min")
    curves = sections(page)["comparison"].all("svg")[0].all("path", "line")
    assert len(curves) == 2
    rows = sections(page)["comparison"].panel("Held-out Persian by tokens trained on").table()
    assert rows["1.475"] == ["1.071", "0.9"] and rows["0"] == ["1.912", "1.912"]


def test_only_the_settings_that_differ_are_listed(tmp_path: Path) -> None:
    settings = sections(compared(tmp_path, *two_runs(tmp_path)))["settings"]
    assert settings.table()["seed"][1] == "9" and settings.table()["train.learning_rate"][1] == "0.001"
    assert len(settings.table()) == 2
    sources = {name: {"uri": "package://hafez", "language": "fa"} for name in ("poems", "prose")}
    more = build_run(tmp_path / "more", sources=sources)
    rows = sections(compared(tmp_path, build_run(tmp_path / "less"), more))["settings"].table()
    assert rows == {"sources.prose": ["–", "there"]}
    same = build_run(tmp_path / "same")
    alike = sections(compared(tmp_path, build_run(tmp_path / "once"), same))["settings"]
    assert "None: the recipes are alike." in alike.text


def test_a_key_that_is_not_set_is_as_one_that_an_older_version_did_not_have(tmp_path: Path) -> None:
    older, newer = (build_run(tmp_path / name) for name in ("older", "newer"))
    tree = yaml.safe_load(older.recipe.read_text(encoding="utf-8"))
    assert tree["train"].pop("warmup_steps", "") is None and tree["train"].pop("warmup_ratio")
    older.recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert [*sections(compared(tmp_path, older, newer))["settings"].table()] == ["train.warmup_ratio"]


def test_scores_on_other_text_do_not_compare_and_that_is_said(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    assert "do not compare" not in compared(tmp_path, one, two).text
    for run, digest in ((one, "a"), (two, "b")):
        write_checked(run.heldout / "index.json", {"languages": {"fa": {"hash": digest}}})
    assert "The held-out text (fa) is not the same in all runs" in compared(tmp_path, one, two).text


def test_a_damaged_run_costs_its_own_cells(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    two.results.write_bytes(b"\x00")
    page = compared(tmp_path, one, two)
    table = sections(page)["comparison"].table()
    assert table["two built-run, not finished, 180 steps"][0] == "–"
    assert table["one built-run, finished"][0].startswith("1.912 → 1.071")
    assert any(gap.startswith("two: results.json: damaged") for gap in gaps(page))


def test_no_run_folder_and_too_many_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run").path
    out = tmp_path / "comparison.html"
    with pytest.raises(RunFolderError):
        write_comparison([run, tmp_path / "none"], out)
    with pytest.raises(UsageError, match="at most"):
        write_comparison([run] * (MAX_RUNS + 1), out)
    assert not out.exists()


def test_the_command_compares_where_it_is_given_several(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    app = typer.Typer()
    app.command()(report)
    out = tmp_path / "side-by-side.html"
    result = CliRunner().invoke(
        app, [str(one), str(two), "--out", str(out), "--json"], catch_exceptions=False
    )
    assert json.loads(result.output) == {"report": str(out), "size_bytes": out.stat().st_size}
    assert not one.report.exists()

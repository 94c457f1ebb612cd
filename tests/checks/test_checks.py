"""The one list of checks: doctor shows all findings, a start stops at the first that is fatal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from persianmind.checks.all import all_checks, check_resume_from, preflight
from persianmind.checks.base import Check, CheckContext, CheckResult, Level, one_fact, run_all, stop_at_first
from persianmind.checks.commands import make_doctor, show_findings
from persianmind.common.errors import CheckpointError, MachineError, PersianMindError, RunFolderError
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.model.helpers import make_base
from tests.support.launch import ROOT, ZERO2


def broken(context: CheckContext) -> list[CheckResult]:
    raise MachineError("it is\nbroken")


def unreached(context: CheckContext) -> list[CheckResult]:
    raise AssertionError("a check after the first that failed was made")


def context_of(recipe: Recipe | None, folder: RunFolder, config: Path = ZERO2) -> CheckContext:
    return CheckContext(recipe, config, folder, 2)


def without_text(recipe: Recipe, folder: RunFolder, config: Path = ZERO2) -> list[CheckResult]:
    """Every finding but those that read the whole text."""
    context = context_of(recipe, folder, config)
    return run_all([check for check in all_checks(context) if check.name != "text"], context)


def test_all_run_whatever_fails_and_a_start_stops_at_the_first(tmp_path: Path) -> None:
    context = context_of(None, RunFolder(tmp_path))
    checks = [Check("soft", broken), Check("hard", broken, fatal=True), one_fact("good", lambda c: "fine")]
    assert [(r.name, r.level, r.detail) for r in run_all(checks, context)] == [
        ("soft", Level.WARN, "it is broken"),
        ("hard", Level.FAIL, "it is broken"),
        ("good", Level.OK, "fine"),
    ]
    stop_at_first([checks[0], checks[2]], context)
    with pytest.raises(MachineError):
        stop_at_first([checks[0], checks[1], Check("later", unreached, fatal=True)], context)


def test_a_start_stops_at_a_finding_that_fails_and_not_at_a_warning(tmp_path: Path) -> None:
    context = context_of(None, RunFolder(tmp_path))
    warning = Check("one", lambda c: [CheckResult.warn("one", "slow")], fatal=True)
    failing = Check(
        "two", lambda c: [CheckResult.ok("two", "fine"), CheckResult.fail("two", "no way")], fatal=True
    )
    stop_at_first([warning], context)
    with pytest.raises(MachineError, match="no way"):
        stop_at_first([warning, failing], context)


def test_contradiction_names_both_places(tmp_path: Path) -> None:
    config = json.loads(ZERO2.read_text(encoding="utf-8"))
    config["train_batch_size"] = 32
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(PersianMindError, match=r"mine.json says train_batch_size=32 .*global_batch_size"):
        preflight(load_recipe("tiny"), path, RunFolder(tmp_path / "run"), 2)


def test_what_the_engine_does_not_do_is_found_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    folder = RunFolder(tmp_path / "run")
    path.write_text('{"scheduler": {"type": "WarmupLR"}}', encoding="utf-8")
    (found,) = [one for one in without_text(load_recipe("tiny"), folder, path) if one.level == Level.FAIL]
    assert (found.name, found.level) == ("engine config", Level.FAIL)
    assert "scheduler cannot be used here" in found.detail and "train.schedule" in found.detail
    path.write_text("{}", encoding="utf-8")  # the recipe says everything
    preflight(load_recipe("tiny"), path, folder, 2)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", ["data.seq_len", "stages.1.seq_len"])
def test_sequences_longer_than_the_base_was_made_for_are_refused(tmp_path: Path, key: str) -> None:
    base = make_base(tmp_path / "base", "llama", tied=True)  # 128 positions
    folder = RunFolder(tmp_path / "run")

    def findings(*overrides: str) -> list[CheckResult]:
        recipe = load_recipe("tiny", [f"base={base}", "data.seq_len=64", *overrides])
        return [one for one in without_text(recipe, folder) if one.name == "sequence length"]

    assert [one.detail for one in findings(f"{key}=128")] == ["up to 128 of the base's 128 positions"]
    (refused,) = findings(f"{key}=129")
    assert refused.level == Level.FAIL
    assert f"{key}=129, but {base} was made for 128 positions" in refused.detail
    assert f"give {key}=128 or less" in refused.detail
    (folder.checkpoints / "step-4").mkdir(parents=True)  # a run of a version that did not look goes on
    assert findings(f"{key}=129")[0].level == Level.OK


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="not empty and no run folder"):
        preflight(load_recipe("tiny"), ZERO2, RunFolder(tmp_path), 2)
    with pytest.raises(RunFolderError, match="is a file"):
        preflight(load_recipe("tiny"), ZERO2, RunFolder(tmp_path / "thesis.tex"), 2)


def test_a_good_recipe_fails_no_check_and_nothing_is_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    preflight(load_recipe("tiny"), ZERO2, folder, 2)
    findings = without_text(load_recipe("tiny"), folder)
    # The machine may have something to warn of (a port that another test holds), the recipe has nothing.
    assert not [one for one in findings if one.level == Level.FAIL]
    of_the_recipe = {
        "engine config",
        "run folder",
        "base model",
        "sequence length",
        "sources",
        "compile",
        "kernels",
        "trackers",
        "hub",
    }
    assert {one.level for one in findings if one.name in of_the_recipe} == {Level.OK}
    assert list(tmp_path.iterdir()) == []


def test_without_a_recipe_the_machine_alone_is_checked(outside: Path) -> None:
    code, checks, ok = doctor()
    assert (code, ok) == (0, True)
    assert {"python", "device", "host memory", "port", "disk speed", "hub"} <= set(checks)
    assert not {"sources", "run folder", "vocabulary"} & set(checks)
    assert list(outside.iterdir()) == []


def test_foreign_text_is_no_markup_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([CheckResult.warn("gpu 0 memory", "held by [red]x[/red] [/]"), CheckResult.fail("b", "no")])
    shown = capsys.readouterr().out
    assert "[red]x[/red] [/]" in shown and "0 ok, 1 warn, 1 fail" in shown


def test_an_empty_corpus_fails_the_check_of_sources(outside: Path) -> None:
    (outside / "empty.jsonl").write_text("", encoding="utf-8")
    recipe = load_recipe("tiny", ["sources.poems.uri=empty.jsonl"])
    with pytest.raises(PersianMindError, match="poems"):
        preflight(recipe, ZERO2, RunFolder(outside / "run"), 2)


def test_resume_from_wants_checkpoints(tmp_path: Path) -> None:
    check_resume_from(None)
    with pytest.raises(CheckpointError, match="neither a checkpoint nor a run folder"):
        check_resume_from(tmp_path)
    (tmp_path / "checkpoints" / "step-5").mkdir(parents=True)
    check_resume_from(tmp_path)


def doctor(*arguments: str, extra: tuple[Check, ...] = ()) -> tuple[int, dict[str, dict[str, str]], bool]:
    app = typer.Typer()
    app.command()(make_doctor(lambda: extra))
    done = CliRunner().invoke(app, [*arguments, "--deepspeed", str(ZERO2), "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    assert set(found) == {"ok", "checks"}
    assert all(set(check) == {"name", "level", "detail"} for check in found["checks"])
    return done.exit_code, {check["name"]: check for check in found["checks"]}, found["ok"]


def test_doctor_lists_every_problem_at_once(outside: Path) -> None:
    code, checks, ok = doctor("tiny", "base=./gone", "sources.poems.uri=gone/*", "train.trackers=[trackio]")
    assert (code, ok) == (1, False)
    failed = {name for name, check in checks.items() if check["level"] == "fail"}
    assert failed == {"base model", "sources", "trackers"}
    assert "pip install trackio" in checks["trackers"]["detail"]
    assert list(outside.iterdir()) == []


def test_doctor_takes_checks_of_later_layers(outside: Path) -> None:
    code, checks, ok = doctor("tiny", extra=(Check("ray", broken),))
    assert (code, ok) == (0, True)
    assert checks["ray"]["level"] == "warn" and checks["packages"]["level"] == "ok"


def test_the_list_needs_neither_torch_nor_the_engine() -> None:
    code = (
        "import sys; from pathlib import Path; from persianmind.checks.all import preflight; "
        "from persianmind.recipe.loading import load_recipe; from persianmind.run.folder import RunFolder; "
        f"preflight(load_recipe('tiny'), Path({str(ZERO2)!r}), RunFolder(Path('/nonexistent/run')), 2); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "deepspeed", "transformers"} & set(done.stdout.split())

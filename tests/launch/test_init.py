"""A first recipe from flags or answers; mistakes are one line, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from persianmind.checks.base import CheckContext, Level
from persianmind.cli import app
from persianmind.common.console import invoke
from persianmind.common.errors import PersianMindError, UsageError
from persianmind.data.check import Finding
from persianmind.engine.registry import backend
from persianmind.launch import init_command
from persianmind.launch.check_command import data_line, read_data
from persianmind.launch.first_recipe import RecipeFacts, first_recipe, held_out_ratio, new_tokens, passes
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.corpus import INSTRUCT_FILE, sample_documents, sample_path

BASE = ("--base", "random://llama")


def init(folder: Path, *words: str) -> None:
    invoke(app, ["init", str(folder), *words], "persianmind")


def test_from_flags(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outside / "notes.txt").write_text("\n".join(sample_documents("syntran")), encoding="utf-8")
    init(Path("my run"), *BASE, "--language", "fa", "--text", "notes.txt", "--gpus", "2")
    recipe = load_recipe("my run/recipe.yaml")
    assert recipe.name == "my-run"
    assert recipe.sources["text"].uri == str(outside / "notes.txt")  # from any folder
    assert [stage.name for stage in recipe.stages] == ["pretrain"]
    assert recipe.held_out_languages() == ["fa", "en"]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  persianmind check my run/recipe.yaml",
        "  persianmind train my run/recipe.yaml --gpus 2",
    ]


def test_from_answers(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["random://llama", "ka", str(sample_path("syntran"))])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(init_command.typer, "prompt", lambda question, default: next(answers))
    init(Path("mine"), "--instructions", str(INSTRUCT_FILE))
    recipe = load_recipe("mine/recipe.yaml")
    assert recipe.sources["text"].language == "ka" and recipe.evaluate.prompts == []
    assert [stage.name for stage in recipe.stages] == ["pretrain", "instruct"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--language", "fa", "--text", "x.txt"], "give --base: "),
        ([*BASE, "--text", "x.txt"], "give --language: "),
        ([*BASE, "--language", "fa"], "give --text: "),
        ([*BASE, "--language", "fa", "--text", "nope.txt"], "sources.text: no such file or folder"),
        ([*BASE, "--language", "xx9", "--text", "x.txt"], "xx9"),
    ],
)
def test_mistakes(outside: Path, words: list[str], line: str) -> None:
    (outside / "x.txt").write_text("x", encoding="utf-8")
    with pytest.raises(PersianMindError, match=line):
        init(Path("mine"), *words)
    assert not (outside / "mine").exists()


def test_a_recipe_that_is_there_stays(outside: Path) -> None:
    kept = outside / "mine" / "recipe.yaml"
    kept.parent.mkdir()
    kept.write_text("name: kept", encoding="utf-8")
    with pytest.raises(PersianMindError, match="is there already"):
        init(Path("mine"), *BASE, "--language", "fa", "--text", "x.txt")
    assert kept.read_text(encoding="utf-8") == "name: kept"


@pytest.mark.parametrize("text_bytes", [0, 1_000, 450_000, 30_000_000, 5_000_000_000])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_every_size_gives_a_recipe(text_bytes: int, on_gpu: bool, tmp_path: Path) -> None:
    facts = RecipeFacts("mine", 'odd "name"', "fa", ["a", "b"], ["c"], ["d"], text_bytes, on_gpu)
    path = tmp_path / "recipe.yaml"
    path.write_text(first_recipe(facts), encoding="utf-8")
    recipe = load_recipe(str(path))
    assert recipe.base == 'odd "name"' and recipe.sources["english"].uri == "d"
    assert 100 <= (recipe.vocab.new_tokens or 0) <= 10_000
    assert recipe.data.seq_len == (2048 if on_gpu else 512)
    assert all("#" not in str(value) for value in yaml.safe_load(first_recipe(facts)).values())


def test_amounts_follow_the_text() -> None:
    assert [new_tokens(size) for size in (0, 450_000, 3_000_000, 10**9)] == [100, 300, 2000, 10_000]
    assert [held_out_ratio(size) for size in (0, 450_000, 20_000_000, 10**10)] == [0.1, 0.1, 0.01, 0.001]
    assert [passes(size) for size in (10**6, 10**9)] == [3, 1]


def test_check_reads_every_record(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in sample_documents("syntran")[:40]]
    (tmp_path / "good.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "torn.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:-5]]), encoding="utf-8")
    levels = {}
    for name in ("good", "torn"):
        override = f"sources.poems.uri={tmp_path / name}.jsonl"
        context = CheckContext(load_recipe("tiny", [override]), backend().default_config, RunFolder(tmp_path))
        levels[name] = next(one for one in read_data(context) if one.name == "data of poems").level
    assert levels == {"good": Level.OK, "torn": Level.WARN}


def test_what_a_build_would_refuse_fails() -> None:
    source = load_recipe("tiny").sources["poems"]
    finding = Finding(records_read=3, rejected={"not JSON": 3}, verdict="too many bad records")
    assert data_line("poems", finding, source).level is Level.FAIL


def test_verdict(outside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persianmind.checks.all.all_checks", lambda context: [])
    monkeypatch.setattr("persianmind.cli._later_checks", list)
    assert invoke(app, ["check", "tiny", "seed=3", "--gpus", "2"], "persianmind") in (None, 0)
    assert capsys.readouterr().out.splitlines()[-1] == "ready: persianmind train tiny seed=3 --gpus 2"
    assert invoke(app, ["check", "tiny", "sources.poems.uri=nope.txt"], "persianmind") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("not ready: 1 to fix")
    with pytest.raises(UsageError):
        invoke(app, ["check"], "persianmind")

"""The table of docs/mistakes.md: what people type wrongly, and the line they get, word for word.

`python -m tests.e2e.test_mistakes` writes the lines anew; each is then to be read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pytest

from persianmind import cli
from persianmind.common.console import invoke
from persianmind.common.errors import PersianMindError
from persianmind.recipe.hints import flag_hint
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.launch import ROOT

PAGE = ROOT / "docs" / "mistakes.md"
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", flags=re.MULTILINE)
LEAST_ROWS = 40


def rows() -> list[tuple[str, str]]:
    return [(command, line) for command, line in ROW.findall(PAGE.read_text(encoding="utf-8"))]


def prepare(folder: Path) -> None:
    """What the commands of the table find: a run, a recipe with a tab, an empty folder, a file."""
    run = folder / "runs" / "tiny"
    run.mkdir(parents=True)
    RunFolder(run).claim(load_recipe("tiny", ["seed=1"]))
    (run / "vocab").mkdir()  # learnt by that recipe
    (folder / "tabs.yaml").write_text("name: mine\nbase:\tx\n\tbad", encoding="utf-8")
    (folder / "list.yaml").write_text("- a\n- b\n", encoding="utf-8")
    (folder / "bare.yaml").write_text("name: mine\n", encoding="utf-8")
    (folder / "notes.txt").write_text("سلام دنیا", encoding="utf-8")
    (folder / "empty").mkdir()
    (folder / "mine").mkdir()
    (folder / "mine" / "recipe.yaml").write_text("name: mine\n", encoding="utf-8")


def line_of(command: str) -> str:
    """What the command says on standard error, `persianmind: error:` left out."""
    words = shlex.split(command)[1:]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            invoke(cli.app, words, "persianmind", flag_hint)
    except PersianMindError as error:
        line = " ".join(str(error).split()).replace("|", "\\|")
        return line.replace(str(ROOT), "CHECKOUT").replace(str(Path.cwd()), "HERE")
    return "no mistake"


def test_there_are_forty_and_each_is_another() -> None:
    found = rows()
    assert len(found) >= LEAST_ROWS
    assert len({command for command, _ in found}) == len({line for _, line in found}) == len(found)


@pytest.mark.parametrize(("command", "line"), rows())
def test_the_line_is_the_one_in_the_table(
    command: str, line: str, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    prepare(outside)
    before = sorted(outside.rglob("*"))
    assert line_of(command) == line
    assert sorted(outside.rglob("*")) == before  # nothing is written


def write_page() -> None:
    """The second column anew."""
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        prepare(Path(folder))
        text = ROW.sub(lambda row: f"| `{row[1]}` | {line_of(row[1])} |", text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    write_page()

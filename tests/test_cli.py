"""The front door: every command answers --help in words of people, and every mistake is one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from persianmind import __version__, cli
from persianmind.cluster.commands import with_recipe_flag
from persianmind.common import console
from persianmind.common.errors import UsageError
from tests.support.launch import ROOT

GROUPS = {"Before a run", "A run", "Its model", "For experts"}
PYTHON_WORDS = ("<bool>", "<str>", "<list[", "<path>", "<int", "<float")


def run(*arguments: str) -> Any:
    return console.invoke(cli.app, arguments, "persianmind")


def all_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, one in getattr(command, "commands", {}).items():
        yield (*path, name)
        yield from all_commands(one, (*path, name))


# `submit` has the help of cluster/submit.py, which ends its process.
COMMANDS = [one for one in all_commands(typer.main.get_command(cli.app)) if one != ("submit",)]


def test_the_number_of_commands_is_known() -> None:
    assert len(COMMANDS) == 35


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_for_people(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert " ".join(("Usage: persianmind", *command)) in shown
    assert [word for word in PYTHON_WORDS if word in shown] == []
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_without_names_python_types_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(console, "name_wanted", lambda command: command)
    run("train", "--help")
    assert "<bool>" in capsys.readouterr().out


def test_commands_are_grouped(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    shown = capsys.readouterr().out
    assert all(f"─ {group} ─" in shown for group in GROUPS)
    assert {command.rich_help_panel for command in cli.app.registered_commands} <= GROUPS


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trainn"], "No such command 'trainn'. Did you mean 'train'?; `persianmind --help` lists the flags"),
        (["train"], "Missing argument 'RECIPE'; `persianmind train --help` lists the flags"),
        (["train", "tiny", "--foo"], "No such option: --foo; `persianmind train --help` lists the flags"),
        (["vocab", "build"], "Missing option '--base'; `persianmind vocab build --help` lists the flags"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_the_command(arguments: list[str], line: str) -> None:
    with pytest.raises(UsageError) as raised:
        run(*arguments)
    assert str(raised.value) == line


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"persianmind {__version__}\n"


def test_a_shell_completes(tmp_path: Path) -> None:
    asked = {"_PERSIANMIND_COMPLETE": "complete_bash", "COMP_WORDS": "persianmind tr", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "persianmind"]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT), **asked},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "train"


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (["tiny", "--address", "http://h:8265"], ["--recipe", "tiny", "--address", "http://h:8265"]),
        (["--recipe", "tiny", "--local"], ["--recipe", "tiny", "--local"]),
        (["status", "tiny-1"], ["status", "tiny-1"]),
        (["seed=3", "--local"], ["seed=3", "--local"]),
        (["--help"], ["--help"]),
    ],
)
def test_submit_takes_the_recipe_first(words: list[str], passed: list[str]) -> None:
    assert with_recipe_flag(words) == passed


def test_nothing_heavy_is_imported_for_help() -> None:
    code = "import sys, persianmind.cli; print({'torch', 'ray', 'deepspeed', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""One place prints: what it does to foreign text, and that no other module prints by itself."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from persianmind.common import console, log
from persianmind.common.console import LiveLine, emit_json, emit_table, run_guarded
from persianmind.common.log import configure_logging, print_line, print_text, printable
from tests.support.hostile import HOSTILE, MARKUP, is_calm, steering
from tests.support.launch import ROOT

# Who may write to a stream: the place itself, tables on top of it, and the chat's screen, which asks for
# `printable` by itself because an answer comes in pieces.
PRINTING = {"common/log.py", "common/console.py", "chat/screen.py"}
PRINTERS = {"print", "print_exc", "print_exception", "print_stack", "echo", "secho", "echo_via_pager"}
SOURCES = [
    *(ROOT / "persianmind").rglob("*.py"),
    *(ROOT / "launcher").glob("*.py"),
    ROOT / "cluster/submit.py",
]


def printing(tree: ast.AST) -> Iterator[str]:
    """Every call and import of a module by which it could print."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rsplit(".", 1)[-1] in PRINTERS or name.endswith(("stdout.write", "stderr.write")):
                yield name
        elif isinstance(node, ast.ImportFrom | ast.Import):
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            if (module or "").split(".")[0] in ("rich", "tqdm", "click"):
                yield f"import of {module}"


def test_no_other_module_prints() -> None:
    found = {
        path.relative_to(ROOT / "persianmind").as_posix() if "persianmind" in path.parts else path.name: names
        for path in SOURCES
        if (names := list(printing(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert len(SOURCES) > 300 and found.keys() <= PRINTING, found
    assert "common/console.py" in found  # the scan sees what it looks for


@pytest.mark.parametrize(
    "line",
    ["print(x)", "typer.echo(x)", "sys.stderr.write(x)", "Console().print(x)", "import rich.table",
     "from tqdm import tqdm", "traceback.print_exc()"],
)  # fmt: skip
def test_a_planted_line_that_prints_is_noticed(line: str) -> None:
    assert list(printing(ast.parse(line)))


def test_printable_keeps_text_and_shows_what_steers() -> None:
    kept = "سلام می\u200cروم 🙂👩\u200d👧 é\t[x]\n"
    assert printable(kept) == kept
    shown = printable("a\x1b[2Jb\rc\x9b\u202e\ue000\U000e0001\udc80\x7f")
    assert shown == r"a\u001b[2Jb\rc\u009b\u202e\ue000\udb40\udc01\udc80\u007f"
    assert printable(shown) == shown


def test_json_stays_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {HOSTILE: [HOSTILE, "\U000e0001", "سلام"]}
    emit_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value and printed.count("\n") == 1 and is_calm(printed)
    assert "سلام" in printed


def test_every_way_to_print_a_foreign_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(HOSTILE)
    print_text(HOSTILE.replace("\n", " "), sys.stderr)
    emit_table(HOSTILE, [HOSTILE], [[HOSTILE]], {HOSTILE: "red"})
    printed = capsys.readouterr()
    assert is_calm(printed.out) and is_calm(printed.err)
    assert printed.out.count(MARKUP) == 4


def test_errors_and_tracebacks_of_any_library(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(HOSTILE.replace("\n", ""))

    assert run_guarded(fail) == 1
    assert is_calm(capsys.readouterr().err)


def test_lines_of_any_library_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(0)
    heard = io.StringIO()
    other = logging.getLogger("another.library")
    handler = logging.StreamHandler(heard)
    other.addHandler(handler)
    other.warning("unknown key %s", HOSTILE.replace("\n", ""))
    other.removeHandler(handler)
    logging.getLogger("persianmind.x").warning(HOSTILE)
    shown = warnings.formatwarning(UserWarning(HOSTILE.replace("\n", "")), UserWarning, "x.py", 1)
    assert is_calm(heard.getvalue()) and is_calm(shown) and is_calm(capsys.readouterr().err)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table, log line and the live line; rich's own colours are the only sequences that come out."""
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    log.console.cache_clear()
    configure_logging(0)
    emit_table("table", ["name"], [[HOSTILE]])
    logging.getLogger("persianmind.x").info(HOSTILE)
    assert not steering(out.getvalue(), on_terminal=True)
    live = LiveLine(10)
    live.show(HOSTILE, 3, 10)
    live.close()
    log.console.cache_clear()
    assert "owned" in out.getvalue() and "\x1b]0;" not in out.getvalue() and "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_without_the_guard_it_would_come_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control of all tests here."""
    for module in (log, console):
        monkeypatch.setattr(module, "one_line", lambda text: text)
    monkeypatch.setattr(log, "printable", lambda text: text)
    print_line(HOSTILE)
    emit_json({"name": HOSTILE})
    emit_table("table", ["name"], [[HOSTILE]])
    printed = capsys.readouterr().out
    assert {"\x1b", "\x9b", "\u202e"} <= steering(printed) and not is_calm(printed)

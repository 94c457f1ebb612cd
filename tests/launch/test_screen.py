"""Lines of ours on the screen, all lines in the log, nothing written before the run has its folder."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from persianmind.common import log
from persianmind.common.log import LINE, MARKED, STATE, mark_lines, print_line, print_state, print_text
from persianmind.launch import screen as screen_module
from persianmind.launch.screen import RunScreen, ScreenLog

CHATTER = "[2026-01-01 00:00:00,000] [INFO] [launch.py:152:main] WORLD INFO DICT: {}"


def make_screen(folder: Path, *, may_write: bool = True, verbose: bool = False) -> RunScreen:
    return RunScreen(ScreenLog(folder / "run.log", lambda: may_write), verbose=verbose)


def test_chatter_goes_to_the_log_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = make_screen(tmp_path)
    screen.take(CHATTER, is_error=False)
    screen.take(LINE + "prepare: base model", is_error=False)
    screen.take(LINE + "persianmind: error: no room", is_error=True)
    screen.close()
    assert capsys.readouterr() == ("prepare: base model\n", "persianmind: error: no room\n")
    assert screen.has_reason
    written = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in written] == [CHATTER, "prepare: base model", "persianmind: error: no room"]


def test_verbose_brings_chatter_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_screen(tmp_path, verbose=True).take(CHATTER, is_error=False)
    assert capsys.readouterr().out == CHATTER + "\n"


def test_nothing_is_written_before_the_folder_is_the_runs(tmp_path: Path) -> None:
    is_claimed: list[bool] = []
    screen = RunScreen(ScreenLog(tmp_path / "run.log", lambda: bool(is_claimed)))
    screen.take(CHATTER, is_error=False)
    assert not (tmp_path / "run.log").exists() and not screen.log.is_written
    is_claimed.append(True)
    screen.take(LINE + "prepare: base model", is_error=False)
    assert CHATTER in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert screen.log.is_written


def test_a_state_is_a_line_now_and_then_in_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = make_screen(tmp_path)
    for step in range(5):
        screen.take(f"{STATE}step {step}", is_error=False)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(screen_module, "STATE_INTERVAL_S", 0.0)
    screen.take(f"{STATE}step 5", is_error=False)
    assert capsys.readouterr().out == "step 5\n"
    monkeypatch.setattr(screen_module, "SILENCE_S", 0.0)
    screen.tick()
    assert capsys.readouterr().out == "step 5\n"


def test_a_silent_run_says_in_a_pipe_how_long_and_where_its_log_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(screen_module.time, "monotonic", lambda: now_s[0])
    screen = make_screen(tmp_path)
    screen.show("tiny: starting")
    assert capsys.readouterr().out == "tiny: starting\n"
    for minutes in (2, 4):  # its own lines are no news
        now_s[0] += 120
        screen.tick()
        told = f"still at it, {minutes} min without a word; {tmp_path / 'run.log'} has all that it said\n"
        assert capsys.readouterr().out == told


def test_a_terminal_shows_each_state_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    screen = make_screen(tmp_path)
    screen.take(f"{STATE}step 1", is_error=False)
    screen.take(f"{STATE}{'step 2 ':7}{'x' * 40}", is_error=False)
    screen.take(f"{LINE}done", is_error=False)
    shown = terminal.getvalue()
    assert "\n" not in shown.split("done")[0]
    assert max(len(part) for part in shown.split(screen_module.ERASE_LINE)) <= 20


def test_a_reader_that_is_gone_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class HungUp(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", HungUp())
    make_screen(tmp_path).show("step 1")
    assert "step 1" in (tmp_path / "run.log").read_text(encoding="utf-8")


def test_lines_are_marked_where_the_parent_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_is_marked", False)
    print_line("plain")
    assert not print_state("nobody shows it")
    monkeypatch.setenv(MARKED, "1")
    mark_lines()
    print_text("two\nlines")
    assert print_state("step 1")
    assert capsys.readouterr().out == f"plain\n{LINE}two\n{LINE}lines\n{STATE}step 1\n"
    assert MARKED not in log.os.environ  # what the rank starts prints into files of its own

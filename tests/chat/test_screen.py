"""What a terminal and what a pipe are given."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from persianmind.chat import screen as module
from persianmind.chat.conversation import Conversation
from persianmind.chat.dialogue_loop import answer_once, talk
from persianmind.chat.screen import Screen
from tests.chat.helpers import scripted

PERSIAN = "سلام، PersianMind هستم."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str | BaseException]:
    """What is typed, line by line, then Ctrl-D."""
    lines: list[str | BaseException] = []

    def read(self: Screen) -> str:
        line = lines.pop(0) if lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(module.Screen, "read", read)
    return lines


def one(folder: Path, *answers: str) -> Mapping[str, Conversation]:
    return {"model": Conversation(scripted(folder, answers)[0], 50)}


def test_a_pipe_gets_the_answer_and_nothing_else(folder: Path) -> None:
    out = io.StringIO()
    answer_once(one(folder, PERSIAN), "سلام", Screen(out))
    assert out.getvalue() == PERSIAN + "\n"


def test_a_terminal_is_asked_for_direction_and_text_gets_no_marks(
    folder: Path, typed: list[str | BaseException]
) -> None:
    typed[:] = ["سلام"]
    out = Terminal()
    talk(one(folder, PERSIAN), Screen(out))
    assert out.getvalue() == f"\x1b[?2501h{PERSIAN}\n\x1b[?2501l"  # the line begins with Persian text


def test_the_terminal_is_as_it_was_after_an_error(folder: Path, typed: list[str | BaseException]) -> None:
    typed[:] = [RuntimeError("broken")]
    out = Terminal()
    with pytest.raises(RuntimeError):
        talk(one(folder), Screen(out))
    assert out.getvalue().endswith("\x1b[?2501l")


def test_a_model_cannot_send_escape_sequences_to_a_terminal(folder: Path) -> None:
    hostile = "a\x1b]0;title\x07\x9b31m [bold red]b[/bold red]\tc\nd"
    out = Terminal()
    answer_once(one(folder, hostile), "x", Screen(out))
    assert out.getvalue() == "a\\u001b]0;title\\u0007\\u009b31m [bold red]b[/bold red]\tc\nd\n"
    pipe = io.StringIO()
    answer_once(one(folder, hostile), "x", Screen(pipe))
    assert pipe.getvalue() == hostile + "\n"


def test_commands(folder: Path, typed: list[str | BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C drops a line, /reset the history; an unknown command and a bad text are said, and it goes on."""
    typed[:] = [KeyboardInterrupt(), "a", "", "/reset", "/what", "x<|end|>", "b", "/exit", "c"]
    out = io.StringIO()
    conversations = one(folder, "first", "second", "third")
    talk(conversations, Screen(out))
    assert out.getvalue() == "\nfirst\nsecond\n" and typed == ["c"]
    assert [turn.content for turn in conversations["model"].messages] == ["b", "second"]
    said = capsys.readouterr().err
    assert "no command /what" in said and "special token" in said and said.count("/reset forgets") == 2


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(folder: Path) -> None:
    model, script = scripted(folder, ["one two three", "four"])
    conversation = Conversation(model, 50)
    screen = Screen(io.StringIO())

    def lines() -> Iterator[str]:
        script.interrupt_after = 2
        yield "a"
        script.interrupt_after = None
        yield "b"
        raise EOFError

    screen.read = lines().__next__  # type: ignore[method-assign]
    talk({"model": conversation}, screen)
    first, second = screen.out.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first and first != "one two three" and "one two three".startswith(first) and second == "four"
    assert [turn.content for turn in conversation.messages] == ["a", first, "b", "four"]


def test_two_models_answer_under_their_names_each_with_its_own_history(
    folder: Path, typed: list[str | BaseException]
) -> None:
    typed[:] = ["a"]
    out = io.StringIO()
    conversations = {
        "runs/[b]x": Conversation(scripted(folder, ["left"])[0], 50),
        "base": Conversation(scripted(folder, ["right"])[0], 50),
    }
    talk(conversations, Screen(out))
    assert out.getvalue() == "[runs/[b]x]\nleft\n[base]\nright\n"
    assert [one.messages[1].content for one in conversations.values()] == ["left", "right"]

"""The loop: a line, an answer of each model, until the end."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from persianmind.chat.conversation import Conversation
from persianmind.chat.screen import Screen
from persianmind.common.errors import UsageError
from persianmind.common.log import print_line

HELP = "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer"


def answer_once(conversations: Mapping[str, Conversation], text: str, screen: Screen) -> None:
    """One text, the answer alone; the answers under their names where there are several.

    Raises:
        UsageError: the text cannot be answered.
    """
    for name, conversation in conversations.items():
        pieces = conversation.ask(text)
        _write_name(name, conversations, screen)
        for piece in pieces:
            screen.write(piece)
        screen.write("\n")


def talk(conversations: Mapping[str, Conversation], screen: Screen) -> None:
    """Reads lines until the end; what cannot be answered is said on standard error, and it goes on."""
    if screen.is_terminal:
        print_line(HELP, sys.stderr)
    with screen.conversation():
        while (text := _next_line(screen)) is not None:
            if text == "/exit":
                return
            if text == "/reset":
                for conversation in conversations.values():
                    conversation.reset()
            elif re.fullmatch(r"/[a-z]+", text):
                print_line(f"no command {text}; {HELP}", sys.stderr)
            elif text:
                _answer_all(conversations, text, screen)


def _next_line(screen: Screen) -> str | None:
    """The next line without space around it; None at the end. Ctrl-C drops the line that is being typed."""
    while True:
        try:
            return screen.read().strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            screen.write("\n")
            print_line(HELP, sys.stderr)


def _answer_all(conversations: Mapping[str, Conversation], text: str, screen: Screen) -> None:
    for name, conversation in conversations.items():
        before = conversation.forgotten
        try:
            pieces = conversation.ask(text)
        except UsageError as error:
            print_line(f"persianmind: {error}", sys.stderr)
            continue
        if conversation.forgotten > before:
            print_line(
                f"persianmind: the first {conversation.forgotten} turns no longer fit and are forgotten",
                sys.stderr,
            )
        _write_name(name, conversations, screen)
        try:
            for piece in pieces:
                screen.write(piece)
        except KeyboardInterrupt:
            pieces.close()
        screen.write("\n")


def _write_name(name: str, conversations: Mapping[str, Conversation], screen: Screen) -> None:
    """On a line of its own: before the text it would decide the direction of the line."""
    if len(conversations) > 1:
        screen.write(f"[{name}]\n")

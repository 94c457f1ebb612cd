"""A dialogue: turns in an order that can be trained on. What records look like: shapes/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]

TRIMMED = "turns_after_the_last_answer"


class BadDialogueError(Exception):
    """A record that is no dialogue; the message is the name of the reason."""


class UntrainableDialogueError(Exception):
    """A sound record that holds what is not trained on (tools, images); the message is the name of it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ParsedDialogue:
    """messages: a system turn or none, then user and assistant in turn, the last one the assistant's.
    left_out: names of what the record held beside them, each once per occurrence."""

    messages: tuple[Message, ...]
    left_out: tuple[str, ...] = ()


def dialogue_of(turns: Sequence[tuple[Role, str]], left_out: Sequence[str] = ()) -> ParsedDialogue:
    """Turns as they stand in a record, put in order.

    An empty system turn says nothing and goes; what follows the last answer cannot be learnt and goes,
    counted.

    Raises:
        BadDialogueError: roles out of turn, an empty prompt or answer, no answer at all.
    """
    messages: list[Message] = []
    for place, (role, content) in enumerate(turns):
        previous = messages[-1].role if messages else None
        if role == "system":
            if place:
                raise BadDialogueError("roles_out_of_turn")
            if content.strip():
                messages.append(Message(role, content.strip()))
            continue
        if (role == "user" and previous == "user") or (role == "assistant" and previous != "user"):
            raise BadDialogueError("roles_out_of_turn")
        if not content.strip():
            raise BadDialogueError("empty_prompt" if role == "user" else "empty_answer")
        messages.append(Message(role, content.strip()))
    if all(message.role != "assistant" for message in messages):
        raise BadDialogueError("no_answer")
    trimmed = [] if messages[-1].role == "assistant" else [TRIMMED]
    return ParsedDialogue(tuple(messages[: len(messages) - len(trimmed)]), (*left_out, *trimmed))

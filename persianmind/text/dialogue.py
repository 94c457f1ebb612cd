"""Instruction records as dialogues. How they are written as text: chat_template.py.

Two shapes of record are read: `{instruction, input, output}` (input may be missing) and `{messages: [{role,
content}, ...]}` with the roles system (first only), user and assistant in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


class BadDialogueError(Exception):
    """A record that is no dialogue; the message is the name of the reason."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str


def parse_dialogue(fields: Mapping[str, Any]) -> list[Message]:
    """The turns of an instruction record: user and assistant in turn, the last one the assistant's.

    Raises:
        BadDialogueError: missing fields, wrong types, roles out of turn, an empty answer.
    """
    if fields.get("messages") is not None:
        return _from_messages(fields["messages"])
    if "instruction" not in fields or "output" not in fields:
        raise BadDialogueError("missing_field")
    values = [fields["instruction"], fields.get("input") or "", fields["output"]]
    if not all(isinstance(value, str) for value in values):
        raise BadDialogueError("wrong_type")
    instruction, given, output = (value.strip() for value in values)
    prompt = "\n".join(part for part in (instruction, given) if part)
    if not prompt:
        raise BadDialogueError("empty_prompt")
    if not output:
        raise BadDialogueError("empty_answer")
    return [Message("user", prompt), Message("assistant", output)]


def _from_messages(messages: Any) -> list[Message]:
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise BadDialogueError("wrong_type")
    turns: list[Message] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise BadDialogueError("wrong_type")
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadDialogueError("wrong_type")
        turns.append(_turn(role, content.strip(), turns))
    if turns[-1].role != "assistant":
        raise BadDialogueError("no_answer_at_the_end")
    return turns


def _turn(role: str, content: str, before: Sequence[Message]) -> Message:
    previous = before[-1].role if before else None
    if role == "system" and previous is None:
        return Message("system", content)
    if role == "user" and previous in (None, "system", "assistant"):
        if not content:
            raise BadDialogueError("empty_prompt")
        return Message("user", content)
    if role == "assistant" and previous == "user":
        if not content:
            raise BadDialogueError("empty_answer")
        return Message("assistant", content)
    raise BadDialogueError("roles_out_of_turn")

"""Instruction records as dialogues, and their form as text. Knows no tokenizer.

Two shapes of record are read: `{instruction, input, output}` (input may be missing) and `{messages: [{role,
content}, ...]}` with the roles system (first only), user and assistant in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from persianmind.language import default_profile
from persianmind.language.profile import PromptTemplate

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


def render_prompt(
    prompt: str, context: str | None = None, template: PromptTemplate = default_profile().prompt
) -> str:
    r"""The text before the answer to one prompt.

    In Persian: "{context}\\nYou: {prompt}\\nPersianMind: "; the template's own context unless one is given.
    """
    stated = template.context if context is None else context
    return f"{stated}\n{template.user_turn}{prompt}\n{template.assistant_turn}"


def persianmind_segments(
    messages: Sequence[Message], template: PromptTemplate = default_profile().prompt
) -> list[tuple[str, bool]]:
    """Writes a dialogue as segments; joined they are the whole conversation.

    An answer segment is the answer alone; whoever tokenises it puts the end-of-text token after it. The first
    prompt segment equals `render_prompt`, so training sees exactly what generation will be given.

    Returns:
        (text, is_answer) in order.
    """
    context = messages[0].content if messages[0].role == "system" else template.context
    segments: list[tuple[str, bool]] = []
    for message in messages:
        if message.role == "user":
            before = f"{context}\n" if not segments else "\n"
            segments.append(
                (f"{before}{template.user_turn}{message.content}\n{template.assistant_turn}", False)
            )
        elif message.role == "assistant":
            segments.append((message.content, True))
    return segments

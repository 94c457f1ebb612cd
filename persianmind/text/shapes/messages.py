"""Lists of turns: `messages` of {role, content} as OpenAI's, `conversations` of {from, value} as ShareGPT's.

Roles go by any of the names in use. Content may be a list of parts, as multi-modal sets have it. Tool calls
and their results are not trained on: such a dialogue is left out whole, under the name of what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from persianmind.text.dialogue import (
    BadDialogueError,
    ParsedDialogue,
    Role,
    UntrainableDialogueError,
    dialogue_of,
)
from persianmind.text.shapes.base import field_text, given

LISTS = ("messages", "conversations", "conversation")
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
TOOL_ROLES = frozenset(
    {"tool", "function", "ipython", "observation", "function_call", "function_response", "tool_call"}
)
TOOL_DEFINITIONS = "tool_definitions"
_WITHOUT_TEXT = ("tool_calls", "function_call")


class Messages:
    """As above. A `system` field beside the list is its first turn."""

    order = 0
    fields = "messages or conversations ({role, content} or {from, value})"

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether there is a list of turns."""
        return given(fields, *LISTS) is not None

    def parse(self, fields: Mapping[str, Any]) -> ParsedDialogue:
        """See `base.Shape`."""
        turns = read_turns(fields[given(fields, *LISTS) or ""])
        if system := field_text(fields, "system") or field_text(fields, "system_prompt"):
            if turns[0][0] == "system" and turns[0][1].strip():
                raise BadDialogueError("roles_out_of_turn")
            turns = [("system", system), *(turn for turn in turns if turn[0] != "system")]
        left_out = [name for name in ("tools", "functions") if fields.get(name)]
        return dialogue_of(turns, [TOOL_DEFINITIONS] if left_out else [])


def read_turns(value: Any) -> list[tuple[Role, str]]:
    """The turns of a list, as they stand.

    Raises:
        BadDialogueError: it is no list of turns, or a role is unknown.
        UntrainableDialogueError: a turn is a tool's, calls one, or has parts that are no text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise BadDialogueError("wrong_type")
    return [_turn(one) for one in value]


def _turn(turn: Any) -> tuple[Role, str]:
    if not isinstance(turn, Mapping):
        raise BadDialogueError("wrong_type")
    named = turn.get("role") if turn.get("role") is not None else turn.get("from")
    if not isinstance(named, str):
        raise BadDialogueError("wrong_type")
    role = named.strip().lower()
    if role in TOOL_ROLES:
        raise UntrainableDialogueError("tool_turn")
    if any(turn.get(name) for name in _WITHOUT_TEXT):
        raise UntrainableDialogueError("tool_call")
    if role not in ROLES:
        raise BadDialogueError("unknown_role")
    return ROLES[role], _content(turn["content"] if turn.get("content") is not None else turn.get("value"))


def _content(content: Any) -> str:
    """Its text; the texts of several parts follow one another as chat templates write them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise BadDialogueError("wrong_type")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise BadDialogueError("wrong_type")
        if part["type"] not in ("text", "input_text", "output_text"):
            raise UntrainableDialogueError("content_that_is_no_text")
        texts.append(field_text(part, "text"))
    return "".join(texts)


SHAPE = Messages()

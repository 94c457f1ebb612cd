"""Alpaca's {instruction, input, output}, with `system` and `history` as later sets have them; Dolly's
{instruction, context, response}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from persianmind.text.dialogue import BadDialogueError, ParsedDialogue, Role, dialogue_of
from persianmind.text.shapes.base import field_text, given

ANSWERS = ("output", "response")


class Alpaca:
    """As above: the input follows the instruction on a line of its own; history is [[prompt, answer],
    ...]."""

    order = 1
    fields = "instruction and output (input, system, history)"

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether there is an instruction with an answer."""
        return "instruction" in fields and any(name in fields for name in ANSWERS)

    def parse(self, fields: Mapping[str, Any]) -> ParsedDialogue:
        """See `base.Shape`."""
        answer = given(fields, *ANSWERS)
        if answer is None or fields["instruction"] is None:
            raise BadDialogueError("wrong_type")
        parts = [
            field_text(fields, "instruction"),
            field_text(fields, given(fields, "input", "context") or "input"),
        ]
        turns: list[tuple[Role, str]] = [
            ("system", field_text(fields, given(fields, "system", "system_prompt") or "system")),
            *_history(fields.get("history")),
            ("user", "\n".join(part for part in parts if part)),
            ("assistant", field_text(fields, answer)),
        ]
        return dialogue_of(turns)


def _history(value: Any) -> list[tuple[Role, str]]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadDialogueError("wrong_type")
    turns: list[tuple[Role, str]] = []
    for pair in value:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise BadDialogueError("wrong_type")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    return turns


SHAPE = Alpaca()

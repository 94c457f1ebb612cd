"""One prompt and one answer: {prompt, completion}, {question, answer} and their like; either side a text or,
as TRL's conversational sets have it, a list of turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persianmind.text.dialogue import BadDialogueError, ParsedDialogue, Role, dialogue_of
from persianmind.text.shapes.base import field_text, given
from persianmind.text.shapes.messages import read_turns

PROMPTS = ("prompt", "question", "query", "inputs")
ANSWERS = ("completion", "response", "answer", "targets")


class Pair:
    """As above. `context` or `passage` stands before the question; `system` and `system_prompt` come
    first."""

    order = 2
    fields = "prompt and completion; question and answer"

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether there are a prompt and an answer."""
        return any(name in fields for name in PROMPTS) and any(name in fields for name in ANSWERS)

    def parse(self, fields: Mapping[str, Any]) -> ParsedDialogue:
        """See `base.Shape`."""
        asked, answered = given(fields, *PROMPTS), given(fields, *ANSWERS)
        if asked is None or answered is None:
            raise BadDialogueError("wrong_type")
        before = given(fields, "context", "passage")
        passage = "" if before is None else field_text(fields, before)
        prompt = _side(fields[asked], "user", passage)
        answer = _side(fields[answered], "assistant", "")
        system = given(fields, "system", "system_prompt")
        turns: list[tuple[Role, str]] = [] if system is None else [("system", field_text(fields, system))]
        return dialogue_of([*turns, *prompt, *answer])


def _side(value: Any, role: Role, before: str) -> list[tuple[Role, str]]:
    if not isinstance(value, str):
        return read_turns(value)
    return [(role, "\n".join(part for part in (before, value.strip()) if part))]


SHAPE = Pair()

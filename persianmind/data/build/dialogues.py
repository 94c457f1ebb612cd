"""Instruction records to tokens and loss targets: only answers, and the end-of-turn after each, are learnt.

A dialogue is tokenised as the one string that its form writes (chat_form.py); what is learnt follows from
where each token stands in it. A record for which that cannot be exact is skipped under a reason of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from persianmind.common.errors import DataError
from persianmind.data.chat_form import ChatForm, Span
from persianmind.text.chat_template import RefusedDialogueError
from persianmind.text.dialogue import Message
from persianmind.tokenizer import LocatedTokens, Tokens

Targets = npt.NDArray[np.bool_]

# Why a record is skipped.
SPECIAL_TOKEN = "special_token_in_text"
TURN_LABEL = "turn_label_in_text"
REFUSED = "refused_by_chat_template"
ACROSS = "token_across_prompt_and_answer"


class InstructionEncoder:
    """Turns dialogues into (tokens, targets)."""

    def __init__(self, form: ChatForm) -> None:
        self._form = form

    def encode(self, dialogues: Sequence[Sequence[Message]]) -> list[tuple[Tokens, Targets] | str]:
        """What each dialogue is trained as.

        Returns:
            uint32 token ids and bool targets, of equal length; for a dialogue that is skipped, the reason.

        Raises:
            DataError: the chat template rewrites earlier turns, or ends an answer in some other way than it
                did before.
        """
        results: list[tuple[Tokens, Targets] | str] = []
        rendered: list[tuple[int, str, list[Span]]] = []
        for messages in dialogues:
            outcome = self._render(messages)
            if not isinstance(outcome, str):
                rendered.append((len(results), *outcome))
            results.append(outcome if isinstance(outcome, str) else "")
        encoded = self._form.tokenizer.encode_located([text for _, text, _ in rendered])
        for (place, _, spans), located in zip(rendered, encoded, strict=True):
            targets = self._targets(located, spans)
            results[place] = targets if isinstance(targets, str) else (located.ids, targets)
        return results

    def _render(self, messages: Sequence[Message]) -> tuple[str, list[Span]] | str:
        held = [one for message in messages for one in self._reserved if one in message.content]
        if held:
            return TURN_LABEL if set(held) <= {*self._form.turn_labels} else SPECIAL_TOKEN
        try:
            return self._form.render_answers(messages)
        except RefusedDialogueError:
            return REFUSED

    def _targets(self, located: LocatedTokens, spans: Sequence[Span]) -> Targets | str:
        targets = np.zeros(len(located.ids), dtype=np.bool_)
        for begin, end in spans:
            first, last = located.token_at(begin), located.token_at(end - 1)
            if first is None or located.starts_at(first) < begin:
                return ACROSS
            if last is None or located.ids[last] not in self._form.end_of_turn_ids:
                raise DataError(
                    f"the chat template of {self._form.tokenizer.folder} does not end every answer with the "
                    "same token, so generation would not stop; set data.prompt=persianmind"
                )
            targets[first : last + 1] = True
        return targets

    @cached_property
    def _reserved(self) -> list[str]:
        return self._form.reserved_strings()

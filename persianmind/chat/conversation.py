"""One conversation with one model: its history, and what of it still fits."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from persianmind.common.errors import UsageError
from persianmind.text.chat_template import RefusedDialogueError
from persianmind.text.dialogue import Message

if TYPE_CHECKING:
    from persianmind.evaluate.chat_model import ChatModel

ANSWER_RATIO = 4  # of what a model reads, one part in this many is kept free for the answer


class Conversation:
    """Turns so far, in order; the form writes them out as one dialogue.

    forgotten: how many turns were dropped from its front because the model reads no more.
    """

    def __init__(self, model: ChatModel, max_new_tokens: int) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.messages: list[Message] = []
        self.forgotten = 0
        self._reserved = model.form.reserved_strings()

    def reset(self) -> None:
        """Forgets everything."""
        self.messages, self.forgotten = [], 0

    def ask(self, text: str) -> Generator[str]:
        """The answer to what was typed, in pieces as they come; however it ends, what was said by then is
        history.

        Raises:
            UsageError: nothing to answer, a text that would forge a turn, or one longer than the model reads.
        """
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError("the text is not UTF-8; set the terminal, or convert the file, to UTF-8")
        said = self.model.normalise(text)
        self._check(said)
        self.messages.append(Message("user", said))
        try:
            ids, max_new_tokens = self._fitted()
        except UsageError:
            self.messages.pop()
            raise
        return self._answer(ids, max_new_tokens)

    def _answer(self, ids: list[int], max_new_tokens: int) -> Generator[str]:
        pieces: list[str] = []
        try:
            for piece in self.model.answer_ids(ids, max_new_tokens=max_new_tokens):
                pieces.append(piece)
                yield piece
        finally:
            self._remember("".join(pieces))

    def _remember(self, answer: str) -> None:
        """A turn without an answer, or with one that would forge turns, is no part of a dialogue."""
        if answer.strip() and not self._forges(answer):
            self.messages.append(Message("assistant", answer.strip()))
        else:
            self.messages.pop()

    def _check(self, said: str) -> None:
        if not said:
            raise UsageError("nothing to answer; type a text")
        if token := self._forges(said):
            raise UsageError(
                f"the text holds {token!r}, which the model reads as a special token; training left out such "
                "text, so leave it out here too"
            )

    def _forges(self, text: str) -> str | None:
        return next((token for token in self._reserved if token in text), None)

    def _fitted(self) -> tuple[list[int], int]:
        """(ids of the dialogue, tokens that the answer may have), the oldest turns dropped as needed.

        Raises:
            UsageError: the last turn alone is too long, or the template refuses it.
        """
        ids = self._ids(self.messages)
        limit = self.model.max_positions
        if limit is None:
            return ids, self.max_new_tokens
        reserve = min(self.max_new_tokens, max(1, limit // ANSWER_RATIO))
        messages, forgotten = self.messages, 0
        while len(ids) + reserve > limit and len(messages) > 2:
            messages, forgotten = messages[2:], forgotten + 2
            ids = self._ids(messages)
        if len(ids) + reserve > limit:
            raise UsageError(
                f"the text takes {len(ids):,} tokens; the model reads {limit:,}, {reserve:,} of them for the "
                "answer: shorten it"
            )
        self.messages, self.forgotten = list(messages), self.forgotten + forgotten
        return ids, min(self.max_new_tokens, limit - len(ids))

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        try:
            return self.model.form.prompt_ids(messages)
        except RefusedDialogueError as error:
            raise UsageError(f"the model's chat template cannot write this: {error}") from None

"""Instruction records to tokens and loss targets: only answers, and the end-of-text after each, are learnt.

Two prompt forms: PersianMind's own (text/dialogue.py) and the chat template of the base model's tokenizer.
Segments are tokenised one by one and joined, so that what stands before an answer is tokenised exactly as it
will be at generation, when there is no answer yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from persianmind.common.errors import DataError
from persianmind.text.dialogue import Message, persianmind_segments
from persianmind.tokenizer import FolderTokenizer, Tokens

PromptForm = Literal["persianmind", "chat_template"]
_SEPARATOR = "\n"


class InstructionEncoder:
    """Turns dialogues into (tokens, targets).

    Raises:
        DataError: the chat template is asked for and there is none, or one that rewrites earlier turns.
    """

    def __init__(self, tokenizer: FolderTokenizer, form: PromptForm) -> None:
        self._tokenizer = tokenizer
        self._form = form

    def encode(self, dialogues: Sequence[Sequence[Message]]) -> list[tuple[Tokens, npt.NDArray[np.bool_]]]:
        """uint32 token ids and bool targets of each dialogue, of equal length."""
        segmented = [self.segments(messages) for messages in dialogues]
        texts = [text for segments in segmented for text, _ in segments]
        ids = iter(
            self._encode_segments(texts, [i == 0 for segments in segmented for i in range(len(segments))])
        )
        return [self._join(segments, [next(ids) for _ in segments]) for segments in segmented]

    def forges_turns(self, messages: Sequence[Message]) -> bool:
        """Whether a turn holds a string that the template's own special tokens are written with."""
        if self._form != "chat_template":
            return False
        return any(token in message.content for message in messages for token in self._special_tokens)

    def segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The dialogue as (text, is_answer) in order."""
        if self._form == "persianmind":
            return persianmind_segments(messages)
        return self._template_segments(messages)

    def _join(
        self, segments: Sequence[tuple[str, bool]], ids: Sequence[list[int]]
    ) -> tuple[Tokens, npt.NDArray[np.bool_]]:
        own_form = self._form == "persianmind"
        bos, eos = self._tokenizer.bos_id, self._tokenizer.eos_id
        tokens = [bos] if own_form and bos is not None else []
        targets = [False] * len(tokens)
        for (_, is_answer), segment in zip(segments, ids, strict=True):
            tokens += segment
            targets += [is_answer] * len(segment)
            if is_answer and own_form:
                tokens.append(eos)
                targets.append(True)
        return np.array(tokens, dtype=np.uint32), np.array(targets, dtype=np.bool_)

    def _encode_segments(self, texts: Sequence[str], first: Sequence[bool]) -> list[list[int]]:
        """Ids of segments; those after the first must not get the space that some tokenizers put in front."""
        templated = self._form == "chat_template"
        if not self._prepends_space:
            return self._tokenizer.encode(texts, parse_special=templated)
        guarded = [
            text if is_first else _SEPARATOR + text for text, is_first in zip(texts, first, strict=True)
        ]
        skip = len(self._tokenizer.encode([_SEPARATOR])[0])
        ids = self._tokenizer.encode(guarded, parse_special=templated)
        return [one if is_first else one[skip:] for one, is_first in zip(ids, first, strict=True)]

    @cached_property
    def _special_tokens(self) -> list[str]:
        return self._tokenizer.special_tokens()

    @cached_property
    def _prepends_space(self) -> bool:
        """SentencePiece tokenizers with a dummy prefix read "x" as " x"; a line break before it shields.

        Asked of the tokenizer itself: "x" alone and "x" after a line break differ.
        """
        alone, after, separator = self._tokenizer.encode(["x", _SEPARATOR + "x", _SEPARATOR])
        return after[len(separator) :] != alone and after[: len(separator)] == separator

    def _template_segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """Cuts the rendered dialogue around each answer; the end-of-turn token belongs to the answer."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        segments: list[tuple[str, bool]] = []
        done = ""
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._render(turns[:i], answer_follows=True)
            after = self._render(turns[: i + 1], answer_follows=False)
            if not before.startswith(done) or not after.startswith(before):
                raise DataError(
                    f"the chat template of {self._tokenizer.folder} rewrites earlier turns, so the answer "
                    "cannot be told from the prompt; set data.prompt=persianmind"
                )
            answer = after[len(before) :]
            learnt = self._until_end_of_turn(answer)
            segments += [(before[len(done) :], False), (answer[:learnt], True)]
            done = before + answer[:learnt]
        return segments

    def _until_end_of_turn(self, answer: str) -> int:
        """Length of the answer with its end-of-turn token; what a template puts after it is no answer."""
        stripped = answer.rstrip()
        return len(stripped) if stripped else len(answer)

    def _render(self, turns: list[dict[str, str]], *, answer_follows: bool) -> str:
        text: str = self._template.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=answer_follows
        )
        return text

    @cached_property
    def _template(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._tokenizer.folder, local_files_only=True)
        if not getattr(tokenizer, "chat_template", None):
            raise DataError(
                f"{self._tokenizer.folder} has no chat template; set data.prompt=persianmind or give a base "
                "with one"
            )
        return tokenizer

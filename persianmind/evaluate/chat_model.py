"""A model that answers dialogues, in the form and the spelling that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.data.chat_form import ChatForm
from persianmind.evaluate.generate import stream_ids, stream_text
from persianmind.language import run_profile
from persianmind.recipe import Recipe
from persianmind.text.clean import input_normaliser
from persianmind.text.dialogue import Message
from persianmind.tokenizer import FolderTokenizer


@dataclass(frozen=True, slots=True, eq=False)
class ChatModel:
    """A live model with all that stands between a typed text and its answer.

    causal_lm: a transformers ...ForCausalLM. tokenizer: only its ids are ever chosen. form: how a dialogue is
    written for the model. normalise: the spelling of what is typed.
    """

    causal_lm: Any
    tokenizer: FolderTokenizer
    form: ChatForm
    normalise: Callable[[str], str]

    @classmethod
    def of_recipe(cls, causal_lm: Any, tokenizer_dir: Path, recipe: Recipe) -> ChatModel:
        """The model of a run, with the tokenizer of a folder.

        Raises:
            DataError: the folder holds no usable tokenizer, or no chat template where the recipe asks for it.
        """
        tokenizer = FolderTokenizer(tokenizer_dir)
        profile = run_profile(recipe)
        form = ChatForm.of(tokenizer, recipe.data.prompt, profile.prompt)
        return cls(causal_lm, tokenizer, form, input_normaliser(profile, recipe.normalise))

    @property
    def max_positions(self) -> int | None:
        """How many tokens the model reads at most, prompt and answer together; None: it does not say."""
        stated = getattr(self.causal_lm.config, "max_position_embeddings", None)
        return stated if isinstance(stated, int) and stated > 0 else None

    def answer(self, messages: Sequence[Message], *, max_new_tokens: int) -> Iterator[str]:
        """The answer to a dialogue, in pieces as they come; the model must be in `generation_mode`."""
        return self.answer_ids(self.form.prompt_ids(messages), max_new_tokens=max_new_tokens)

    def answer_ids(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> Iterator[str]:
        """The same for a dialogue that is token ids already."""
        ids = stream_ids(
            self.causal_lm,
            prompt_ids,
            max_new_tokens=max_new_tokens,
            stop_ids={*self.form.end_of_turn_ids, self.tokenizer.eos_id},
            vocab_size=self.tokenizer.vocab_size,
        )
        return stream_text(ids, lambda collected: self.tokenizer.decode(collected, skip_special=True))

    def sample(self, prompt: str, *, max_new_tokens: int, on_piece: Callable[[], None] = lambda: None) -> str:
        """The whole answer to one prompt."""
        pieces = []
        for piece in self.answer([Message("user", self.normalise(prompt))], max_new_tokens=max_new_tokens):
            on_piece()
            pieces.append(piece)
        return "".join(pieces)

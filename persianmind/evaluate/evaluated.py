"""A model that is measured: its forward passes, its tokenizer, and the form it was trained to answer in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from persianmind.data.chat_form import ChatForm
from persianmind.evaluate.chat_model import ChatModel
from persianmind.evaluate.likelihood import MAX_BATCH_TOKENS, Likelihood, Request
from persianmind.language import LanguageProfile, profile_for
from persianmind.recipe.language import ProfileSpec
from persianmind.tokenizer import FolderTokenizer

DEFAULT_WINDOW = 2048


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedModel:
    """What all families of tests ask of a model; it is used within `generation_mode`.

    name: as it was given. fingerprint: of its weights and tokenizer. form: how it is asked; None where it has
    no chat template. normalise: the spelling it was trained on, for what is typed to it. vocab_size: ids from
    here on are in no softmax; None: all are. window: how many ids it is given at once, at most.
    max_batch_tokens: of one pass. run: the run folder whose data it was trained on, where that is known.
    profiles: of languages, those that it was trained with.
    """

    name: str
    causal_lm: Any
    tokenizer: FolderTokenizer
    fingerprint: str
    form: ChatForm | None
    normalise: Callable[[str], str] = str.strip
    vocab_size: int | None = None
    window: int = DEFAULT_WINDOW
    max_batch_tokens: int = MAX_BATCH_TOKENS
    run: Path | None = None
    on_progress: Callable[[], None] = lambda: None
    profiles: Mapping[str, ProfileSpec] = field(default_factory=dict)

    def profile(self, code: str) -> LanguageProfile:
        """The profile of a language, the model's own first."""
        return profile_for(code, self.profiles)

    def likelihood(self) -> Likelihood:
        """What gives likelihoods of it."""
        return Likelihood(
            self.causal_lm,
            vocab_size=self.vocab_size,
            max_batch_tokens=self.max_batch_tokens,
            on_progress=self.on_progress,
        )

    def chat_model(self) -> ChatModel | None:
        """The same as what answers dialogues; None without a form."""
        if self.form is None:
            return None
        return ChatModel(self.causal_lm, self.tokenizer, self.form, self.normalise)

    def request(self, context: str, continuation: str) -> Request:
        """A continuation behind a context, as ids.

        Both are tokenised as one string, as a model reads them, and parted where the context's own ids end;
        space at the context's end goes to the continuation. The begin-of-text token stands in front where the
        tokenizer adds one; an empty context is that token, or end-of-text. What is too long loses its
        beginning. All of this as lm-evaluation-harness does it.
        """
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        if not bare:
            ids = self.tokenizer.encode([continuation], parse_special=True)[0]
            return self._within((self.tokenizer.bos_or_eos_id,), tuple(ids))
        whole, given = self.tokenizer.encode([bare + continuation, bare], parse_special=True)
        lead = () if self.tokenizer.bos_id is None else (self.tokenizer.bos_id,)
        return self._within((*lead, *whole[: len(given)]), tuple(whole[len(given) :]))

    def with_progress(self, on_progress: Callable[[], None]) -> EvaluatedModel:
        """The same; `on_progress` is called wherever it makes progress."""
        return replace(self, on_progress=on_progress)

    def _within(self, context: tuple[int, ...], continuation: tuple[int, ...]) -> Request:
        if not continuation:  # a tokenizer that joined both into one token
            context, continuation = context[:-1] or (self.tokenizer.bos_or_eos_id,), context[-1:]
        room = self.window + 1 - len(continuation)
        return Request(context[-max(1, room) :], continuation[: self.window])

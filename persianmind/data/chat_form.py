"""How dialogues are written for one tokenizer: one Jinja template, in training, at generation and on servers.

Two forms: PersianMind's own (text/chat_template.py) and the chat template of the base model's tokenizer. A
dialogue is rendered whole and tokenised as one string, because that is what every server does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from persianmind.common.errors import DataError
from persianmind.language.profile import PromptTemplate
from persianmind.text.chat_template import RefusedDialogueError, own_template, render_template, with_bos
from persianmind.text.dialogue import Message
from persianmind.text.template_limits import check_chat_template
from persianmind.tokenizer import FolderTokenizer

PromptForm = Literal["persianmind", "chat_template"]
Span = tuple[int, int]
_PROBE = (Message("user", "1"), Message("assistant", "2"))


@dataclass(frozen=True)
class ChatForm:
    """The form of dialogues for one tokenizer.

    template: Jinja source. end_of_turn_ids: where generation stops, the token after an answer first.
    turn_labels: plain text that begins a turn.
    """

    template: str
    end_of_turn_ids: tuple[int, ...]
    tokenizer: FolderTokenizer = field(repr=False, compare=False)
    turn_labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: FolderTokenizer, form: PromptForm, prompt: PromptTemplate) -> ChatForm:
        """The form that a recipe's `data.prompt` names.

        Args:
            tokenizer: of the model.
            form: which of the two.
            prompt: what our own form says in the language of the run.

        Raises:
            DataError: the tokenizer reads no special tokens in text; or the base's template is asked for and
                there is none, or one that cannot be trained on. The message says what to do.
        """
        tokenizer.encode_located([])  # a folder that cannot is refused here
        if form == "persianmind":
            bos = "" if tokenizer.bos_id is None else _written(tokenizer, tokenizer.bos_id)
            eos = _written(tokenizer, tokenizer.eos_id)
            labels = tuple(f"\n{label.rstrip()}" for label in (prompt.user_turn, prompt.assistant_turn))
            return cls(
                own_template(prompt, bos=bos, eos=eos), (tokenizer.eos_id,), tokenizer, turn_labels=labels
            )
        return _base_form(tokenizer)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The dialogue as one string, special tokens in it; with a generation prompt, to be answered.

        Raises:
            RefusedDialogueError: the template says that it cannot write these turns.
        """
        return render_template(
            self.template,
            messages,
            self.tokenizer.named_tokens,
            add_generation_prompt=add_generation_prompt,
        )

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a dialogue that is to be answered: a prefix of those it is trained with.

        Raises:
            RefusedDialogueError: the template says that it cannot write these turns.
        """
        text = self.render(messages, add_generation_prompt=True)
        return self.tokenizer.encode([text], parse_special=True)[0]

    def render_answers(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The whole dialogue as one string, and where its answers stand in it.

        Returns:
            The text, and for each answer the characters [from, to): from the end of the generation prompt
            through the end-of-turn token. What a template puts after that is no answer.

        Raises:
            RefusedDialogueError: the template says that it cannot write these turns.
            DataError: the template rewrites earlier turns.
        """
        whole = self.render(messages)
        spans = []
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.render(messages[:i], add_generation_prompt=True)
            after = whole if i + 1 == len(messages) else self.render(messages[: i + 1])
            answered = after.rstrip()
            if not answered.startswith(before) or not whole.startswith(answered):
                raise DataError(
                    f"the chat template of {self.tokenizer.folder} rewrites earlier turns, so the answer "
                    "cannot be told from the prompt; set data.prompt=persianmind"
                )
            spans.append((len(before), len(answered)))
        return whole, spans

    def reserved_strings(self) -> list[str]:
        """Strings that no turn may hold: read as the tokens they name, they would end it or forge another. So
        do the labels of our own form at the start of a line."""
        parsed = self.tokenizer.parsed_tokens()
        ends = [parsed[token_id] for token_id in self.end_of_turn_ids if token_id in parsed]
        return sorted({*self.tokenizer.special_tokens(), *ends, *self.turn_labels})


def _base_form(tokenizer: FolderTokenizer) -> ChatForm:
    template, where = tokenizer.chat_template(), f"the chat template of {tokenizer.folder}"
    if template is None:
        raise DataError(
            f"{tokenizer.folder} has no chat template; set data.prompt=persianmind or give a base with one"
        )
    if "strftime_now" in template:
        raise DataError(
            f"{where} writes the date of the day, so data built tomorrow would differ; set "
            "data.prompt=persianmind, or write a fixed date in place of strftime_now"
        )
    check_chat_template(template, str(tokenizer.folder))
    form = ChatForm(template, (), tokenizer)
    try:
        if tokenizer.bos_id is not None:
            bos = _written(tokenizer, tokenizer.bos_id)
            if not form.render(_PROBE).startswith(bos):
                form = replace(form, template=with_bos(template, bos))
        text, ((_, end),) = form.render_answers(_PROBE)
    except RefusedDialogueError as error:
        raise DataError(f"{where} writes no dialogue: {error}; set data.prompt=persianmind") from None
    last = tokenizer.encode([text[:end]], parse_special=True)[0][-1]
    if last not in tokenizer.parsed_tokens():
        raise DataError(
            f"{where} puts no end-of-turn token after an answer, so generation would never stop; set "
            "data.prompt=persianmind"
        )
    return replace(form, end_of_turn_ids=tuple(dict.fromkeys((last, tokenizer.eos_id))))


def _written(tokenizer: FolderTokenizer, token_id: int) -> str:
    """The string that the tokenizer reads as this one token."""
    text = tokenizer.parsed_tokens().get(token_id)
    if text is None or tokenizer.encode([text], parse_special=True)[0] != [token_id]:
        raise DataError(
            f"the tokenizer of {tokenizer.folder} does not read its token {token_id} "
            f"({tokenizer.token_text(token_id)!r}) in text, so no dialogue can be written with it; name it "
            "in added_tokens of tokenizer.json, with special: true"
        )
    return text

"""Multiple choice: by the likelihood of the letter, by that of the whole candidate, and by what is answered.

The published order comes first, since published figures are of it. Letters are then asked in every cyclic
order: each candidate stands once at each place, so that a model which knows places alone is right in exactly
one order of each item, which is chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from persianmind.evaluate.families.base import NotPossibleError, Numbered, Record, TaskContext, TaskFamily
from persianmind.evaluate.families.choice_metrics import choice_metrics
from persianmind.evaluate.families.choice_prompt import (
    LETTERS,
    asked_prompt,
    letter_prompt,
    read_answer,
    text_prompt,
)
from persianmind.evaluate.generate import UNFINISHED
from persianmind.evaluate.items import ChoiceItem
from persianmind.evaluate.likelihood import Request
from persianmind.evaluate.measured import Measured
from persianmind.recipe import Section
from persianmind.recipe.section import Count

Method = Literal["letters", "text", "generation"]


class ChoiceOptions(Section):
    """methods: how candidates are weighed. orders: whether letters are asked in every cyclic order.
    answer_word: what stands before the answer. max_new_tokens: of a generated one."""

    methods: list[Method] = Field(default=["letters", "text"], min_length=1)
    orders: bool = True
    answer_word: str = "Answer:"
    max_new_tokens: Count = 16


class MultipleChoice(TaskFamily[ChoiceItem]):
    """Belebele, exams, entailment, paraphrase."""

    name: ClassVar[str] = "choice"
    options: ClassVar[type[Section]] = ChoiceOptions

    def check(self, context: TaskContext) -> None:
        if context.options.methods == ["generation"] and context.model.form is None:
            raise NotPossibleError("the model has no chat template, by which it would be asked")

    def score(self, context: TaskContext, numbered: Numbered[ChoiceItem]) -> Iterator[Record]:
        for chunk in numbered.chunks(lambda item: (item.passage, item.question)):
            yield from self._chunk(context, chunk)

    def measure(self, context: TaskContext, records: Sequence[Record]) -> list[Measured]:
        return list(choice_metrics(records))

    def prompt_parts(self, context: TaskContext) -> Sequence[str]:
        probe = ChoiceItem("{question}", ("{1}", "{2}"), 0, "{passage}")
        word = context.options.answer_word
        return (
            letter_prompt(probe, 0, word),
            text_prompt(probe, word),
            asked_prompt(probe, _asked(context)),
            *(text for example in context.examples for text in example.texts),
        )

    def _chunk(self, context: TaskContext, chunk: dict[int, ChoiceItem]) -> Iterator[Record]:
        options: ChoiceOptions = context.options
        requests: list[Request] = []
        letters: dict[int, list[range]] = {}
        texts: dict[int, range] = {}

        def ask(prompt: str, continuations: Sequence[str]) -> range:
            requests.extend(context.model.request(prompt, one) for one in continuations)
            return range(len(requests) - len(continuations), len(requests))

        shown_letters, shown_text = _examples(context, letter=True), _examples(context, letter=False)
        for number, item in chunk.items():
            if "letters" in options.methods:
                orders = range(len(item.candidates) if options.orders else 1)
                marks = [f" {letter}" for letter in LETTERS[: len(item.candidates)]]
                letters[number] = [
                    ask(shown_letters + letter_prompt(item, order, options.answer_word), marks)
                    for order in orders
                ]
            if "text" in options.methods:
                prompt = shown_text + text_prompt(item, options.answer_word)
                texts[number] = ask(prompt, [f" {candidate}" for candidate in item.candidates])
        scored = context.model.likelihood().score(requests)
        for number, item in chunk.items():
            record = _record(number, item)
            if number in letters:
                record["letters"] = [[scored[i].log_likelihood for i in one] for one in letters[number]]
            if number in texts:
                record["text"] = [[scored[i].log_likelihood, scored[i].tokens] for i in texts[number]]
            if "generation" in options.methods and context.model.form is not None:
                record |= _generated(context, item)
            yield record


def _record(number: int, item: ChoiceItem) -> Record:
    return {
        "item": number,
        "answer": item.answer,
        "bytes": [len(f" {candidate}".encode()) for candidate in item.candidates],
        "category": item.category,
        "subsets": list(item.subsets),
        "flags": list(item.flags),
        "twins": [
            place
            for place, candidate in enumerate(item.candidates)
            if candidate.strip() == item.candidates[item.answer].strip()
        ],
    }


def _examples(context: TaskContext, *, letter: bool) -> str:
    """What stands before each question: examples with their answers, a blank line after each."""
    word = context.options.answer_word
    parts = []
    for item in context.examples:
        assert isinstance(item, ChoiceItem)
        if letter:
            parts.append(f"{letter_prompt(item, 0, word)} {LETTERS[item.answer]}\n\n")
        else:
            parts.append(f"{text_prompt(item, word)} {item.candidates[item.answer]}\n\n")
    return "".join(parts)


def _asked(context: TaskContext) -> str:
    """What asks for a letter alone, in the language of the items, or in English."""
    return context.profile.phrases.answer_by_letter or context.model.profile("en").phrases.answer_by_letter


def _generated(context: TaskContext, item: ChoiceItem) -> Record:
    chat = context.model.chat_model()
    assert chat is not None
    answer = chat.sample(
        asked_prompt(item, _asked(context)),
        max_new_tokens=context.options.max_new_tokens,
        on_piece=context.model.on_progress,
    )
    chosen = read_answer(answer, item.candidates, context.profile.phrases.option_letters)
    return {"generated": answer.replace(UNFINISHED, ""), "chosen": chosen}

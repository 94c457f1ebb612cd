"""The health of what a model writes: the right script, no repetition, one language, an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from persianmind.evaluate.families.base import NotPossibleError, Numbered, Record, TaskContext, TaskFamily
from persianmind.evaluate.generate import UNFINISHED, stream_ids
from persianmind.evaluate.items import TextItem
from persianmind.evaluate.measured import ItemScores, Measured
from persianmind.evaluate.stats import bootstrap_mean, wilson
from persianmind.language.script import Script, script_ratio
from persianmind.recipe import Section
from persianmind.recipe.section import Count, Ratio
from persianmind.text.dialogue import Message

NGRAM = 4  # words; as in the field's rep-4


class HealthOptions(Section):
    """max_new_tokens: of an answer. min_script_ratio: of an answer's letters that must be of the language's
    script. max_repetition: of its runs of four words that may have stood before."""

    max_new_tokens: Count = 128
    min_script_ratio: Ratio = 0.7
    max_repetition: Ratio = 0.3


class Health(TaskFamily[TextItem]):
    """Answers to prompts, in the trained form."""

    name: ClassVar[str] = "health"
    options: ClassVar[type[Section]] = HealthOptions

    def check(self, context: TaskContext) -> None:
        if context.model.form is None:
            raise NotPossibleError("the model has no chat template, by which it would be asked")

    def score(self, context: TaskContext, numbered: Numbered[TextItem]) -> Iterator[Record]:
        for number, item in sorted(numbered.items.items()):
            yield {"item": number, "prompt": item.text, **_answer(context, item.text)}

    def measure(self, context: TaskContext, records: Sequence[Record]) -> list[Measured]:
        if not records:
            return []
        options: HealthOptions = context.options
        script = context.profile.script
        tests: dict[str, Callable[[Record], bool]] = {
            "right_script": lambda r: (script_ratio(r["text"], script) or 0.0) >= options.min_script_ratio,
            "one_language": lambda r: not _switches(r["text"], script),
            "not_repetitive": lambda r: repetition(r["text"]) <= options.max_repetition,
            "stops": lambda r: bool(r["stopped"]),
            "not_empty": lambda r: bool(r["text"].strip()),
        }
        return [
            *(_ratio(metric, records, test) for metric, test in tests.items()),
            _mean("repetition", records, lambda r: repetition(r["text"])),
            _mean("length_tokens", records, lambda r: float(r["tokens"])),
        ]


def repetition(text: str) -> float:
    """The part of a text's runs of four words that stood in it before."""
    words = text.split()
    runs = Counter(tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))
    total = sum(runs.values())
    return 1 - len(runs) / total if total else 0.0


def _switches(text: str, script: Script) -> bool:
    """Whether a text mixes its language's script with words of another one."""
    ratio = script_ratio(text, script)
    foreign = [word for word in text.split() if script_ratio(word, script) == 0.0]
    return ratio is not None and 0.0 < ratio < 1.0 and len(foreign) > 0.1 * len(text.split())


def _answer(context: TaskContext, prompt: str) -> Record:
    chat = context.model.chat_model()
    assert chat is not None
    limit = context.options.max_new_tokens
    ids = []
    for token in stream_ids(
        chat.causal_lm,
        chat.form.prompt_ids([Message("user", chat.normalise(prompt))]),
        max_new_tokens=limit,
        stop_ids={*chat.form.end_of_turn_ids, chat.tokenizer.eos_id},
        vocab_size=chat.tokenizer.vocab_size,
    ):
        context.model.on_progress()
        ids.append(token)
    text = chat.tokenizer.decode(ids, skip_special=True).replace(UNFINISHED, "").strip()
    return {"text": text, "tokens": len(ids), "stopped": len(ids) < limit}


def _ratio(metric: str, records: Sequence[Record], test: Callable[[Record], bool]) -> Measured:
    found = {record["item"]: float(test(record)) for record in records}
    hits = int(sum(found.values()))
    interval = wilson(hits, len(records))
    scores = ItemScores(found, "right")
    return Measured(metric, hits / len(records), len(records), interval, scores=scores)


def _mean(metric: str, records: Sequence[Record], value: Callable[[Record], float]) -> Measured:
    found = {record["item"]: value(record) for record in records}
    mean = sum(found.values()) / len(records)
    interval = bootstrap_mean(list(found.values()))
    return Measured(metric, mean, len(records), interval, scores=ItemScores(found, "mean"))

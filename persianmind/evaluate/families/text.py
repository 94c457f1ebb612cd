"""Text: how many bits a model needs for it, per byte, per character and per word."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from persianmind.common.bounded import LARGEST_EXPONENT
from persianmind.common.checksum import hash_text
from persianmind.evaluate.families.base import Numbered, Record, TaskContext, TaskFamily
from persianmind.evaluate.items import TextItem
from persianmind.evaluate.measured import ItemScores, Measured
from persianmind.evaluate.stats import bootstrap_ratio
from persianmind.evaluate.windows import rolling_windows
from persianmind.recipe import Section
from persianmind.recipe.section import Count
from persianmind.tokenizer import FolderTokenizer

UNITS = ("bytes", "characters", "words")


class TextOptions(Section):
    """window: ids at once; None: what the model reads. stride: ids that a window predicts; None: all."""

    window: Count | None = None
    stride: Count | None = None


class Text(TaskFamily[TextItem]):
    """Bits per byte and the like; perplexity per token beside the tokenizer that it holds for."""

    name: ClassVar[str] = "text"
    options: ClassVar[type[Section]] = TextOptions

    def check(self, context: TaskContext) -> None:
        """Every model can."""

    def score(self, context: TaskContext, numbered: Numbered[TextItem]) -> Iterator[Record]:
        model, options = context.model, context.options
        size = min(options.window or model.window, model.window)
        for chunk in numbered.chunks(lambda item: len(item.text)):
            ids = model.tokenizer.encode([item.text for item in chunk.values()], parse_special=True)
            windows = [
                list(rolling_windows(one, model.tokenizer.bos_or_eos_id, size, options.stride)) for one in ids
            ]
            nats = iter(model.likelihood().windows([window for one in windows for window in one]))
            for (number, item), own in zip(chunk.items(), windows, strict=True):
                yield {
                    "item": number,
                    "nats": sum(next(nats) for _ in own),
                    "tokens": sum(len(window.predicted) for window in own),
                    **sizes(item.text),
                }

    def measure(self, context: TaskContext, records: Sequence[Record]) -> list[Measured]:
        if not records:
            return []
        found = [_per(unit, records) for unit in UNITS]
        nats, tokens = (sum(record[key] for record in records) for key in ("nats", "tokens"))
        settings = {"tokenizer": tokenizer_name(context.model.tokenizer)}
        perplexity = math.exp(min(nats / max(1, tokens), LARGEST_EXPONENT))
        return [*found, Measured("token_perplexity", perplexity, len(records), settings=settings)]

    def prompt_parts(self, context: TaskContext) -> Sequence[str]:
        return (self.name, context.options.model_dump_json())


def sizes(text: str) -> dict[str, int]:
    """Of a text: UTF-8 bytes, characters, words (between white space)."""
    return {"bytes": len(text.encode("utf-8")), "characters": len(text), "words": len(text.split())}


def tokenizer_name(tokenizer: FolderTokenizer) -> str:
    """What a perplexity per token holds for."""
    return tokenizer.fingerprint() or hash_text(str(tokenizer.vocab_size))


def _per(unit: str, records: Sequence[Record]) -> Measured:
    """Bits per unit over all records; the interval by bootstrap over documents."""
    bits = {record["item"]: record["nats"] / math.log(2) for record in records}
    wholes = {record["item"]: float(record[unit]) for record in records}
    total = sum(wholes.values())
    return Measured(
        f"bits_per_{unit[:-1]}",
        sum(bits.values()) / total if total else None,
        len(records),
        bootstrap_ratio(list(bits.values()), list(wholes.values())),
        settings={f"n_{unit}": int(total)},
        scores=ItemScores(bits, "ratio", wholes),
    )

"""A first recipe from what somebody has: text, instructions, a base, a machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from persianmind.language import profile_for

ENGLISH_TEXT = "package://python-topics"  # where nobody gave any: Python's own help pages, on every machine
HELD_OUT_BYTES = 200_000  # of each language: some hundred documents, an interval of a few percent
BYTES_PER_PIECE = 1_500  # of text for a new token to be seen about a hundred times
FEW_PIECES, MANY_PIECES = 100, 10_000
LITTLE_BYTES = 50_000_000  # below which three passes still gain (arXiv 2305.16264)
TINY_BASES = ("package://", "random://")


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """What is known before the first run. text_bytes: of the files of `text`. english: empty where none was
    given. on_gpu: whether this machine trains on one."""

    name: str
    base: str
    language: str
    text: Sequence[str]
    instructions: Sequence[str]
    english: Sequence[str]
    text_bytes: int
    on_gpu: bool


def first_recipe(facts: RecipeFacts) -> str:
    """The recipe as YAML, each choice with its reason beside it."""
    return "\n".join([*_sources(facts), *_amounts(facts), *_stages(facts), *_evaluation(facts)]) + "\n"


def new_tokens(text_bytes: int) -> int:
    """How many new tokens such a text can teach: a rule of thumb; `persianmind vocab plan` measures."""
    hundreds = max(FEW_PIECES, min(MANY_PIECES, text_bytes // BYTES_PER_PIECE)) // 100
    return hundreds * 100


def held_out_ratio(text_bytes: int) -> float:
    """The part of the text that is kept for measuring."""
    return float(f"{min(0.1, max(0.001, HELD_OUT_BYTES / max(1, text_bytes))):.1g}")


def passes(text_bytes: int) -> int:
    """How often the first stage reads the text."""
    return 3 if text_bytes < LITTLE_BYTES else 1


def _sources(facts: RecipeFacts) -> list[str]:
    lines = [
        "# Written by `persianmind init`; every line may be changed, docs/recipes.md has every key.",
        f"name: {facts.name}",
        f"base: {_quoted(facts.base)}",
        "",
        "sources:",
        f"  text: {{uri: {_uris(facts.text)}, language: {facts.language}}}",
    ]
    if facts.instructions:
        uris = _uris(facts.instructions)
        lines.append(f"  instructions: {{uri: {uris}, kind: instruction, language: {facts.language}}}")
    note = "" if facts.english else " # yours is better; it keeps and measures the base's English"
    english = _uris(facts.english or [ENGLISH_TEXT])
    return [*lines, f"  english: {{uri: {english}, language: en}}{note}", ""]


def _amounts(facts: RecipeFacts) -> list[str]:
    rate = 1.0e-3 if facts.base.startswith(TINY_BASES) else 2.0e-4
    seq_len, batch = (2048, 32) if facts.on_gpu else (512, 4)
    return [
        "# Kept out of training to measure it.",
        f"heldout: {{ratio: {held_out_ratio(facts.text_bytes)}, max_characters: 200000, "
        "sources: [text, english]}",
        f"data: {{seq_len: {seq_len}}}",
        "# More tokens shorten text, but each must be seen often; `persianmind vocab plan` measures.",
        f"vocab: {{new_tokens: {new_tokens(facts.text_bytes)}, sources: [text]}}",
        "adapter: {rank: 8, alpha: 16}",
        "train:",
        f"  global_batch_size: {batch} # sequences per step on all GPUs together",
        "  micro_batch_size: 1 # more where memory allows",
        f"  learning_rate: {rate:.1e}",
        f"  embedding_learning_rate: {2 * rate:.1e} # new tokens begin from a mean and have further to go",
        "  # quantize: nf4 # the base in 4 bits, for a GPU too small for it",
        "",
    ]


def _stages(facts: RecipeFacts) -> list[str]:
    lines = [
        "# A tenth of English in every stage keeps the base's own language.",
        "stages:",
        "  - {name: pretrain, sources: {text: 0.9, english: 0.1}, "
        f"epochs: {{text: {passes(facts.text_bytes)}}}}}",
    ]
    if facts.instructions:
        lines.append(
            "  - {name: instruct, sources: {instructions: 0.9, english: 0.1}, epochs: {instructions: 2}}"
        )
    return [*lines, ""]


def _evaluation(facts: RecipeFacts) -> list[str]:
    prompts = profile_for(facts.language).phrases.samples
    return [
        "# Asked of the base and after every stage, so that answers can be read beside each other.",
        f"evaluate: {{prompts: {json.dumps(prompts, ensure_ascii=False)}}}",
        "# energy: {country_iso: XXX} # your country in three letters, for the CO2 account",
    ]


def _uris(uris: Sequence[str]) -> str:
    return _quoted(uris[0]) if len(uris) == 1 else "[" + ", ".join(map(_quoted, uris)) + "]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # which YAML reads alike

"""Text whose ids an expansion must not change: English, code, URLs, numbers, from the standard library."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import random
import re
import tokenize
from functools import cache

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_UNUSUAL = [
    "naïve café, Zürich, Ångström, façade — “quoted” ‘text’ … 50 €",
    "日本語のテキスト и немного русского, ελληνικά, हिन्दी, עברית",
    "x² + y² ≤ z², α → β, ∑ᵢ aᵢ ≠ ∅, 90° ± 0.5%",
    "emoji 👩‍👩‍👧 🇮🇷 ✅ and a\ttab,  two  spaces,\r\n\r\n\n\n    indented",
    "   leading and trailing   ",
    "<|im_start|>-like text, <b>tags</b> [INST] <<SYS>> {{ jinja }} \\frac{1}{2}",
]


@cache
def english_prose(sentences: int = 1_000) -> tuple[str, ...]:
    """About `sentences` English sentences of Python's own reference, spread over all its topics."""
    from pydoc_data.topics import topics

    parts = [part for _, text in sorted(topics.items()) for part in _SENTENCE.split(text) if part.strip()]
    return tuple(parts[:: max(1, len(parts) // sentences)][:sentences])


@cache
def foreign_samples() -> tuple[str, ...]:
    """English sentences, code by the block and by the file, URLs, numbers, odd characters.

    The same on every call and machine with the same Python.
    """
    code = [inspect.getsource(module) for module in (argparse, dataclasses, tokenize)]
    blocks = [block for source in code for block in source.split("\n\n") if block.strip()]
    generator = random.Random(0)
    numbers = [_number(generator) for _ in range(200)]
    urls = [f"https://example-{i}.org/a/b_{i}?q={_number(generator)}&lang=en#s{i}" for i in range(100)]
    return (*english_prose(), *blocks, *code, *numbers, *urls, *_UNUSUAL)


def _number(generator: random.Random) -> str:
    value = generator.uniform(0, 10 ** generator.randint(0, 12))
    return generator.choice(
        [f"{value:.3f}", f"{int(value):,}", f"{int(value):x}", f"{value:e}", f"-{int(value)}%"]
    )

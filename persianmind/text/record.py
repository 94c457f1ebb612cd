"""What travels between reading, judging and packing: one raw row with a stable identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xxhash


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it was read.

    source: its name in the recipe.
    key: the stable identity of its *document*; rows made from one document ratio it, so that the held-out
        split never tears a poem from its own interpretation.
    place: where to find it ("file.jsonl.gz:17"), for quarantine files and messages.
    fields: the row itself ({"text": ...}, {"instruction", "input", "output"}, {"messages": [...]}).
    """

    source: str
    key: str
    place: str
    fields: Mapping[str, Any]


def is_held_out(key: str, *, seed: int, ratio: float) -> bool:
    """Whether the document `key` belongs to the held-out split: a keyed hash, so order never matters."""
    digest = xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"), seed=seed)
    return digest < ratio * 2**64

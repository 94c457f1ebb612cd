"""Recipes for tests of builders: small shards of short texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persianmind.recipe import Recipe
from tests.data.helpers import make_recipe, sentences, write_jsonl


def build_recipe(folder: Path, stages: list[dict[str, Any]], documents: int = 300, **data: Any) -> Recipe:
    """A recipe over sources of its own in `folder`, in small shards."""
    names = list(dict.fromkeys(name for one in stages for name in one["sources"]))
    sources = {}
    for number, name in enumerate(names):
        records = [{"text": text} for text in sentences(documents, seed=number)]
        sources[name] = {"uri": str(write_jsonl(folder / f"{name}.jsonl", records))}
    sizes = {"sequences_per_shard": 8, "shuffle_block_sequences": 16, "mixture_window": 10, **data}
    return make_recipe(sources, stages=stages, data=sizes)


def build_stage(tokens: int | None = 64 * 100, name: str = "one", **sources: float) -> dict[str, Any]:
    """A stage over these sources; of one pass where no tokens are asked for."""
    length: dict[str, Any] = {"epochs": {next(iter(sources)): 1.0}} if tokens is None else {"tokens": tokens}
    return {"name": name, "sources": sources, **length}

"""Vocabulary expansion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from persianmind.recipe.section import MOST, Dimension, Name, Section


class Vocab(Section):
    """Vocabulary expansion. `train_size` (the paper's way) takes every new piece of a BPE of that size."""

    new_tokens: int = Field(default=10_000, ge=0, le=MOST)
    train_size: Dimension | None = None
    pad_token: bool = False
    sources: list[Name] = Field(default_factory=list)
    initialise: Literal["subword-mean", "mean", "normal", "random"] = "subword-mean"
    train_embeddings: Literal["new", "all"] = "new"

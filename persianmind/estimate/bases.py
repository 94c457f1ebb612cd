"""What is planned: the architecture of a base and the size of its vocabulary, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError
from persianmind.model.bases import (
    GGUF_PACKAGES,
    RANDOM_BASES,
    cached_config,
    read_config,
    resolve_base,
)
from persianmind.model.known_bases import known_config, vocab_size_of
from persianmind.model.made_bases import cache_folder
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.identity import changes
from persianmind.run.keys import Effect
from persianmind.tokenizer.models import JSON_FILE, SENTENCEPIECE_FILE, open_model
from persianmind.vocab.expansion import EXPANSION_FILE, load_expansion

# Of the pieces of a `train_size` BPE the base may have some already: 491 of the paper's 10,000 (arXiv
# 2401.06466). Twice that is left out at most.
MOST_KNOWN_RATIO = 0.1


@dataclass(frozen=True, slots=True)
class VocabularySize:
    """Ids of a run. base: of the base's tokenizer. low, high: how many are added; equal once it is known.

    source: where the numbers come from, in words.
    """

    base: int
    low: int
    high: int
    source: str


def base_config(base: str) -> dict[str, Any]:
    """config.json of a base: from its folder, from a converted base, from the hub's cache, or a known one's.

    Raises:
        BaseModelError: none of these; the message says how to get it.
    """
    scheme, _, name = base.rpartition("://")
    if Path(base).is_dir() or (name in {*GGUF_PACKAGES, *RANDOM_BASES} and scheme):
        return read_config(resolve_base(base))
    if not scheme:
        for found in (cached_config(base), known_config(base)):
            if found is not None:
                return found
    raise BaseModelError(
        f"base {base!r}: its architecture is not known without a download; download its config.json "
        f"(`hf download {base} config.json`), or the whole base, and give the folder (converted bases are "
        f"kept in {cache_folder()})"
    )


def vocabulary_size(recipe: Recipe, config: Mapping[str, Any], folder: RunFolder | None) -> VocabularySize:
    """The vocabulary of the run in `folder` where this recipe built it already, else what the recipe makes of
    it.

    Args:
        config: of the base. Its table is often padded beyond the tokenizer's ids, and is the last resort.
        folder: of the run, which need not exist.

    Raises:
        VocabError: the run's vocabulary is damaged.
        RecipeError, DamagedFileError: its recipe cannot be read.
    """
    if folder is not None and (folder.vocab / EXPANSION_FILE).is_file() and _makes_it(recipe, folder):
        built = load_expansion(folder.vocab)
        return VocabularySize(built.base_vocab, built.added, built.added, f"{folder.vocab}, built already")
    base, source = _base_vocab(recipe.base, config)
    special = int(recipe.vocab.pad_token)
    if recipe.vocab.train_size is None:
        added = recipe.vocab.new_tokens + special
        return VocabularySize(base, added, added, f"{source}; vocab.new_tokens")
    high = recipe.vocab.train_size + special
    low = round(recipe.vocab.train_size * (1 - MOST_KNOWN_RATIO)) + special
    return VocabularySize(
        base, low, high, f"{source}; vocab.train_size, less the pieces that the base has already"
    )


def _makes_it(recipe: Recipe, folder: RunFolder) -> bool:
    """Whether the run in `folder` was begun with nothing else that its vocabulary depends on."""
    if not folder.recipe.is_file():
        return False
    begun = read_run_recipe(folder.recipe)
    return all(change.effect is not Effect.TEXT for change in changes(begun, recipe))


def _base_vocab(base: str, config: Mapping[str, Any]) -> tuple[int, str]:
    """(ids of the base's tokenizer, where that stands)."""
    known = vocab_size_of(base)
    if known is not None:
        return known, "tokenizer of a known base"
    folder = resolve_base(base) if "://" in base else Path(base)
    if (folder / JSON_FILE).is_file() or (folder / SENTENCEPIECE_FILE).is_file():
        # Ids past the table have no embedding, and a run leaves them out.
        return min(open_model(folder).vocab_size, int(config["vocab_size"])), "tokenizer of the base"
    return int(config["vocab_size"]), "table of the base, its tokenizer is not here"

"""The size of the vocabulary: a known tokenizer's, the run's own, or a range."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.errors import BaseModelError
from persianmind.estimate.bases import base_config, vocabulary_size
from persianmind.recipe.loading import load_recipe, write_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.vocab.expansion import Expansion, Gate, write_expansion


def test_the_tokenizer_counts_not_the_padded_table() -> None:
    recipe = load_recipe("persianmind-7b", ["base=Qwen/Qwen2.5-7B", "vocab.train_size=null"])
    config = base_config(recipe.base)
    found = vocabulary_size(recipe, config, None)
    assert (config["vocab_size"], found.base) == (152_064, 151_665)
    assert found.low == found.high == recipe.vocab.new_tokens + 1


def test_a_bpe_of_train_size_gives_a_range_with_the_papers_number_in_it() -> None:
    recipe = load_recipe("persianmind-7b")
    found = vocabulary_size(recipe, base_config(recipe.base), None)
    assert found.base == 32_000 and found.low < 9_510 < found.high == 10_001


def test_the_runs_own_vocabulary_counts_once_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = load_recipe("persianmind-7b"), RunFolder(tmp_path)
    expansion = Expansion("sentencepiece", 32_000, 9_510, (), {}, Gate(1, 1, 1, 1), "")
    folder.vocab.mkdir()
    write_expansion(folder.vocab, expansion)
    write_run_recipe(folder.recipe, recipe)
    monkeypatch.setattr("persianmind.estimate.bases.load_expansion", lambda _: expansion)
    found = vocabulary_size(recipe, base_config(recipe.base), folder)
    assert (found.base, found.low, found.high) == (32_000, 9_510, 9_510)
    faster = load_recipe("persianmind-7b", ["train.learning_rate=1e-3"])
    assert vocabulary_size(faster, base_config(recipe.base), folder).high == 9_510


@pytest.mark.parametrize("key", ["vocab.train_size=5000", "base=random://llama"])
def test_the_vocabulary_of_a_run_with_another_recipe_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A folder goes by the name of its recipe, whatever was changed on the command line since."""
    folder = RunFolder(tmp_path)
    expansion = Expansion("sentencepiece", 32_000, 9_510, (), {}, Gate(1, 1, 1, 1), "")
    folder.vocab.mkdir()
    write_expansion(folder.vocab, expansion)
    write_run_recipe(folder.recipe, load_recipe("persianmind-7b"))
    monkeypatch.setattr("persianmind.estimate.bases.load_expansion", lambda _: expansion)
    recipe = load_recipe("persianmind-7b", [key])
    config = base_config(recipe.base)
    assert vocabulary_size(recipe, config, folder) == vocabulary_size(recipe, config, None)


def test_an_unknown_architecture_says_how_to_get_it() -> None:
    with pytest.raises(BaseModelError, match="give the folder"):
        base_config("someone/some-model")

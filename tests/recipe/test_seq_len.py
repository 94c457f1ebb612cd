"""Sequence lengths of stages: what a recipe says of them."""

from __future__ import annotations

import pytest

from persianmind.common.errors import RecipeError
from persianmind.recipe import Packing
from persianmind.recipe.hints import known_keys
from persianmind.recipe.loading import load_recipe

SHORT = "stages.1.seq_len=128"  # of the tiny recipe, whose others have 256


def test_a_source_is_packed_once_for_each_length_that_reads_it() -> None:
    assert [one.name for one in load_recipe("tiny").stage_packings()] == [
        "poems",
        "messages",
        "english",
        "translate",
        "interpret",
    ]
    recipe = load_recipe("tiny", [SHORT])
    assert [one.name for one in recipe.stage_packings()] == [
        "poems",
        "messages",
        "english",
        "english@128",
        "translate@128",
        "interpret",
    ]
    assert recipe.packings_of("english") == [
        Packing("english", 256, "english"),
        Packing("english", 128, "english@128"),
    ]


def test_the_length_of_data_has_the_sources_own_name_however_it_is_written() -> None:
    """So a run that was begun before there was such a key goes on over its shards."""
    assert (
        load_recipe("tiny", ["stages.1.seq_len=256"]).stage_packings() == load_recipe("tiny").stage_packings()
    )


def test_no_source_can_have_the_name_of_a_packing() -> None:
    with pytest.raises(RecipeError, match="english@128"):
        load_recipe("tiny", ["sources={english@128: {uri: a.txt}}"])


def test_steps_and_tokens_go_by_the_stages_own_length() -> None:
    recipe = load_recipe(
        "tiny", [SHORT, "stages.2={name: last, sources: {english: 1.0}, steps: 3, seq_len: 64}"]
    )
    assert [recipe.tokens_per_step(stage) for stage in recipe.stages] == [1024, 512, 256]
    assert [recipe.tokens_of(stage) for stage in recipe.stages] == [16_384, 7168, 768]
    assert [recipe.steps_of(stage) for stage in recipe.stages] == [16, 14, 3]
    by_epochs = load_recipe("tiny", ["stages.0={name: a, sources: {poems: 1.0}, epochs: 2}"])
    assert by_epochs.steps_of(by_epochs.stages[0]) is None


def test_keys_that_decide_a_length_are_named() -> None:
    assert load_recipe("tiny").seq_len_keys() == {"data.seq_len": 256}
    recipe = load_recipe("tiny", [SHORT])
    assert recipe.seq_len_keys() == {"data.seq_len": 256, "stages.1.seq_len": 128}
    every = load_recipe("tiny", [SHORT, "stages.0.seq_len=64", "stages.2.seq_len=512"])
    assert "data.seq_len" not in every.seq_len_keys() and every.longest_seq_len == 512
    assert {*recipe.seq_len_keys()} - {"stages.1.seq_len"} <= {*known_keys()}


@pytest.mark.parametrize("value", ["8", "0", "20000000", "short"])
def test_no_length_is_one_line(value: str) -> None:
    with pytest.raises(RecipeError, match=r"stages\.1\.seq_len"):
        load_recipe("tiny", [f"stages.1.seq_len={value}"])

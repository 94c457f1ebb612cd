"""Keys of other trainers, and our own at a wrong place or as a flag, get the right hint."""

from __future__ import annotations

from typing import Any

import pytest

from persianmind.cli import app
from persianmind.common.console import invoke
from persianmind.common.errors import RecipeError, UsageError
from persianmind.recipe import hints
from persianmind.recipe.foreign import NOT_HERE, OTHER_NAMES
from persianmind.recipe.hints import flag_hint, known_keys
from persianmind.recipe.loading import load_recipe
from tests.support.launch import ROOT


def refused(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", overrides)
    return str(caught.value)


def test_every_hint_names_a_key_that_exists() -> None:
    assert len(OTHER_NAMES) > 50 and len(NOT_HERE) > 15
    assert {*OTHER_NAMES.values()} <= {*known_keys()}
    assert not {*OTHER_NAMES} & {*NOT_HERE}


@pytest.mark.parametrize("word", OTHER_NAMES)
def test_a_foreign_name_names_ours(word: str) -> None:
    if word in ("dtype",):  # one of ours too, in another section
        assert f"here it is {OTHER_NAMES[word]}" in refused(f"train.{word}=1")
    assert f"unknown key '{word}' (here it is {OTHER_NAMES[word]})" in refused(f"{word}=1")


@pytest.mark.parametrize("word", NOT_HERE)
def test_what_is_not_here_is_said_with_what_there_is(word: str) -> None:
    assert f"unknown key 'train.{word}' ({NOT_HERE[word]}, see docs/training.md)" in refused(
        f"train.{word}=1"
    )


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("lora.r=8", "here it is adapter.rank"),
        ("learning_rate=1e-4", "it lies at train.learning_rate or stages.0.learning_rate"),
        ("train.seq_len=512", "it lies at data.seq_len or stages.0.seq_len"),
        ("stages.0.max_steps=5", "here it is stages.0.steps"),
        ("train.learning_rat=1", "did you mean 'learning_rate'?"),
    ],
)
def test_a_key_at_a_wrong_place(override: str, hint: str) -> None:
    assert f"({hint})" in refused(override)


def test_without_the_table_a_foreign_name_would_get_a_wrong_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    nothing: dict[str, Any] = {}
    monkeypatch.setattr(hints, "OTHER_NAMES", nothing)
    assert "stages.0.steps" not in refused("stages.0.max_steps=5")


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--train.learning_rate", "a recipe's key has no dashes: train.learning_rate=VALUE"),
        ("--learning-rate", "it lies at train.learning_rate or stages.0.learning_rate"),
        ("--per_device_train_batch_size", "here it is train.micro_batch_size=VALUE"),
        ("--fsdp", "ranks share by DeepSpeed ZeRO-2; FSDP is not here, see docs/training.md"),
        ("--nothing", ""),
    ],
)
def test_a_recipes_key_as_a_flag(flag: str, hint: str) -> None:
    assert flag_hint(flag) == hint
    with pytest.raises(UsageError) as caught:
        invoke(app, ["train", "tiny", flag, "1e-4"], "persianmind", flag_hint)
    assert str(caught.value).startswith(f"No such option: {flag}")
    assert hint in str(caught.value) and "`persianmind train --help`" in str(caught.value)


def test_what_is_not_here_has_a_line_in_the_docs() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = page.split("## Not here")[1]
    for word in (
        "NEFTune",
        "PiSSA",
        "8-bit",
        "Full fine-tuning",
        "DPO",
        "FSDP",
        "fp16",
    ):
        assert f"| {word}" in table, word

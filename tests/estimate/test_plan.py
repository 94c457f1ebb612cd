"""The 7B recipe, counted on the meta device with the training code, to the last parameter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persianmind.common.errors import BaseModelError
from persianmind.estimate.plan import base_config, count_parameters, estimate_recipe
from persianmind.model.adapted import build_adapted
from persianmind.recipe.loading import load_recipe
from tests.model.family_cases import make_family_base

LLAMA2_7B = 6_738_415_616
ADDED = 41_510 - 32_000
LORA = 19_988_480  # rank 8 on seven projections of 32 layers


def test_the_paper_model_has_its_parameters() -> None:
    recipe = load_recipe("persianmind-7b")
    total, trained = count_parameters(recipe, ADDED)
    assert total - LORA == LLAMA2_7B + 2 * ADDED * 4096 == 6_816_321_536
    assert trained == LORA + 2 * ADDED * 4096 == 97_894_400


def test_the_paper_way_trains_whole_tables() -> None:
    recipe = load_recipe("persianmind-7b", ["vocab.train_embeddings=all"])
    _, trained = count_parameters(recipe, ADDED)
    assert trained == LORA + 2 * 41_510 * 4096 == 360_038_400


def test_estimate_of_the_7b_recipe_on_four_gpus() -> None:
    result = estimate_recipe("persianmind-7b", [], 4)
    assert result["gradient_accumulation_steps"] == 16 and result["tokens_per_step"] == 131_072
    assert result["steps"] == {"pretrain": 15_259}
    assert result["weight_bytes_per_rank"] == 2 * result["parameters"] < 14e9
    assert result["gradient_and_optimizer_bytes_per_rank"] == 5 * result["trained_parameters"]
    assert result["checkpoint_bytes"] == 14 * result["trained_parameters"]


def test_the_command_prints_one_object() -> None:
    from persianmind.cli import app

    done = CliRunner().invoke(app, ["plan", "tiny", "--ranks", "2", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.output)["gradient_accumulation_steps"] == 2


@pytest.mark.parametrize("name", ["phi", "gemma2", "granitemoe"])
def test_bases_of_other_families_are_planned(tmp_path: Path, name: str) -> None:
    base = make_family_base(tmp_path / "base", name)
    result = estimate_recipe("tiny", [f"base={base}"], 2)
    built = build_adapted(
        base, load_recipe("tiny", ["train.precision=fp32"]), [[0]] * result["added_vocab_at_most"], 96
    )
    assert result["parameters"] == sum(value.numel() for value in built.parameters())
    assert ("mixture of experts" in result["adapted"]) == (name == "granitemoe")


def test_an_unknown_architecture_says_how_to_get_it() -> None:
    with pytest.raises(BaseModelError, match="download it and give the folder"):
        base_config("someone/some-model")

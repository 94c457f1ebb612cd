"""The 7B recipe, counted on the meta device with the training code, to the last parameter."""

from __future__ import annotations

import pytest

from persianmind.checks.doctor import examine
from persianmind.common.errors import BaseModelError
from persianmind.estimate.plan import base_config, count_parameters, forecast
from persianmind.recipe.loading import load_recipe
from tests.launching import ZERO2

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


def test_forecast_of_the_7b_recipe_on_four_cards() -> None:
    result = forecast("persianmind-7b", [], 4)
    assert result["gradient_accumulation_steps"] == 16 and result["tokens_per_step"] == 131_072
    assert result["steps"] == {"pretrain": 15_259}
    assert result["weight_bytes_per_rank"] < 14e9


def test_an_unknown_architecture_says_how_to_get_it() -> None:
    with pytest.raises(BaseModelError, match="download it and give the folder"):
        base_config("someone/some-model")


def test_doctor_lists_every_problem_at_once() -> None:
    checks = {
        check.name: check for check in examine("tiny", ["base=./gone", "sources.poems.uri=gone/*"], ZERO2, 3)
    }
    assert {name for name, check in checks.items() if not check.ok} == {
        "base model",
        "sources",
        "deepspeed json",
    }
    assert all(check.ok for check in examine("tiny", [], ZERO2, 2))

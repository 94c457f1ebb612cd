"""Shapes of known bases: transformers' own model of each configuration has the parameters of its model
card."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.model.families import check_family
from persianmind.model.known_bases import KNOWN_BASES, known_base, known_config, vocab_size_of

# From the model cards, each by itself: not computed from the table that is tested.
CARDS = {
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-chat-hf": 13_015_864_320,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-3-1b-pt": 999_885_952,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "microsoft/phi-2": 2_779_683_840,
}


def count_by_transformers(config: dict[str, Any]) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    return sum(value.numel() for value in model.parameters())


def test_every_base_has_its_card_here() -> None:
    assert [base.name for base in KNOWN_BASES] == list(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_parameters_are_those_of_the_model_card(name: str) -> None:
    base, config = known_base(name), known_config(name)
    assert base is not None and config is not None
    assert count_by_transformers(config) == CARDS[name] == base.parameters
    assert base.weight_bytes == 2 * CARDS[name]
    check_family(config, name)


def test_a_wrong_shape_would_be_seen() -> None:
    config = known_config("Qwen/Qwen2.5-7B")
    assert config is not None
    assert count_by_transformers({**config, "num_key_value_heads": 8}) != CARDS["Qwen/Qwen2.5-7B"]


@pytest.mark.parametrize(
    ("name", "ids", "table"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 151_665, 152_064),
        ("Qwen/Qwen2.5-1.5B", 151_665, 151_936),
        ("Qwen/Qwen3-8B", 151_669, 151_936),
        ("google/gemma-3-1b-it", 262_144, 262_144),
        ("microsoft/phi-2", 50_295, 51_200),
        ("meta-llama/Llama-2-7b-chat-hf", 32_000, 32_000),
    ],
)
def test_ids_of_the_tokenizer_are_not_the_padded_table(name: str, ids: int, table: int) -> None:
    config = known_config(name)
    assert config is not None
    assert (vocab_size_of(name), config["vocab_size"]) == (ids, table)


def test_what_is_given_out_is_a_copy() -> None:
    config = known_config("meta-llama/Llama-3.1-8B")
    assert config is not None
    config["rope_scaling"]["factor"] = 0
    again = known_config("meta-llama/Llama-3.1-8B")
    assert again is not None and again["rope_scaling"]["factor"] == 8.0


def test_an_unknown_name_is_none() -> None:
    assert known_base("someone/some-model") is None
    assert known_config("someone/some-model") is None and vocab_size_of("someone/some-model") is None


def test_each_names_its_source() -> None:
    for base in KNOWN_BASES:
        assert base.source.startswith(f"https://huggingface.co/{base.name}/") and base.source.endswith(
            "2026-11"
        )

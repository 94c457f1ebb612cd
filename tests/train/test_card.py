"""The model card, as the Hub's own library reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe, parse_recipe
from persianmind.run.records import RunResults
from persianmind.train.card import write_card
from persianmind.train.summary import summary_lines
from tests.train.test_summary import SCORES

ACCOUNT: dict[str, Any] = {
    "kwh": 2.0,
    "co2_g": 1383.2004,
    "pue": 1.4,
    "intensity_g_per_kwh": 494.0,
    "intensity": {"source": "a table", "year": 2023, "by_hour": False},
    "measured_ratio": 0.75,
    "by_component": {"gpu0": {}, "cpu": {}, "ram": {}},
}


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("tiny")


def front_matter(path: Path) -> tuple[dict[str, Any], str]:
    """The YAML block between the two lines of dashes, and the text after it."""
    empty, block, text = path.read_text(encoding="utf-8").split("---\n", 2)
    assert empty == ""
    metadata = yaml.safe_load(block)
    assert isinstance(metadata, dict)
    return metadata, text


def test_the_metadata_are_the_hubs_keys(recipe: Recipe, tmp_path: Path) -> None:
    path = write_card(recipe, tmp_path, RunResults(evaluation=SCORES, energy=ACCOUNT))
    assert path == tmp_path / "README.md"
    metadata, _ = front_matter(path)
    assert list(metadata) == [
        "language", "base_model", "library_name", "pipeline_tag", "tags", "co2_eq_emissions",
    ]  # fmt: skip
    assert metadata["language"] == ["fa", "en"]
    assert metadata["base_model"] == "random://llama"
    assert metadata["library_name"] == "transformers" and metadata["pipeline_tag"] == "text-generation"
    assert metadata["tags"] == ["persianmind", "lora", "vocabulary-expansion"]


def test_emissions_are_in_grams_with_their_source(recipe: Recipe, tmp_path: Path) -> None:
    metadata, _ = front_matter(write_card(recipe, tmp_path, RunResults(energy=ACCOUNT)))
    assert metadata["co2_eq_emissions"] == {
        "emissions": 1383.2,
        "source": "codecarbon readings summed by PersianMind: 2 kWh (75% measured, rest estimated) x PUE 1.4 "
        "x 494 g/kWh (a table)",
        "training_type": "fine-tuning",
        "geographical_location": "IRN",
        "hardware_used": "gpu0, cpu, ram",
    }


@pytest.mark.parametrize("energy", [None, {}, {"kwh": 2.0, "co2_g": None}])
def test_unknown_emissions_are_left_out(
    recipe: Recipe, tmp_path: Path, energy: dict[str, Any] | None
) -> None:
    metadata, _ = front_matter(write_card(recipe, tmp_path, RunResults(evaluation=SCORES, energy=energy)))
    assert "co2_eq_emissions" not in metadata


def test_the_text_has_the_scores_and_where_the_data_come_from(recipe: Recipe, tmp_path: Path) -> None:
    results = RunResults(evaluation=SCORES, energy=ACCOUNT)
    _, text = front_matter(write_card(recipe, tmp_path, results))
    assert text.startswith("# tiny\n\nAdapted from `random://llama` with PersianMind.")
    assert "```\n" + "\n".join(summary_lines(results)) + "\n```\n" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert table[2:] == [
        "| poems | fa | MIT |", "| messages | fa | BSD |", "| english | en | PSF |",
        "| translate | fa | BSD |", "| interpret | fa | MIT |",
    ]  # fmt: skip


def test_the_hubs_own_library_reads_it(recipe: Recipe, tmp_path: Path) -> None:
    path = write_card(recipe, tmp_path, RunResults(evaluation=SCORES, energy=ACCOUNT))
    card = ModelCard.load(path)
    data = card.data.to_dict()
    assert data["language"] == ["fa", "en"] and data["co2_eq_emissions"]["emissions"] == 1383.2
    assert card.text.lstrip().startswith("# tiny")
    # The same bytes come back: nothing in it is read in another way than it was meant.
    assert yaml.safe_load(card.data.to_yaml()) == front_matter(path)[0]


def test_values_that_yaml_could_take_for_something_else(recipe: Recipe, tmp_path: Path) -> None:
    tree = recipe.model_dump(mode="json")
    tree["sources"]["english"]["language"] = "no"
    tree["base"] = 'C: "it\'s" # base'
    tree["heldout"]["sources"] = ["poems"]
    metadata, _ = front_matter(write_card(parse_recipe(tree, "test"), tmp_path, RunResults()))
    assert metadata["language"] == ["fa", "no"] and metadata["base_model"] == tree["base"]

"""Recipes: every shipped one loads, mistakes name the nearest key, overrides and round trips hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from persianmind.common.errors import RecipeError
from persianmind.recipe import Recipe, Stage
from persianmind.recipe.hints import RENAMED_KEYS
from persianmind.recipe.loading import dump_recipe, known_recipes, load_recipe, parse_recipe

GOLDEN = Path(__file__).with_name("recipe_keys.json")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes.md"
OF_THE_MACHINE = {
    "country_iso", "intensity_g_per_kwh", "intensity_source", "intensity_year", "intensity_curve_csv", "pue",
    "cpu_tdp_w", "price_per_kwh", "currency", "embodied_g_per_hour",
}  # fmt: skip


def test_every_shipped_recipe_loads_and_says_how_to_run_it() -> None:
    recipes = known_recipes()
    assert {"demo", "persianmind-7b", "tiny"} < {*recipes}
    for name, path in recipes.items():
        assert load_recipe(name).name == name
        assert "launcher/train.py" in path.read_text(encoding="utf-8").split("name:")[0]


def test_no_recipe_states_a_grid_or_a_building() -> None:
    """They belong to the machine: with them a recipe puts its own figure on the page of every other one."""
    own = {path.stem: path for path in (ROOT / "benchmarks").rglob("*.yaml") if _is_recipe(path)}
    assert {"recipe"} <= {*own}
    for path in [*known_recipes().values(), *own.values()]:
        energy = yaml.safe_load(path.read_text(encoding="utf-8")).get("energy", {})
        assert not {*energy} & OF_THE_MACHINE, path
        found = load_recipe(str(path)).energy
        assert (found.country_iso, found.intensity_g_per_kwh, found.pue) == (None, None, 1.0)
        assert found.cpu_tdp_w is None


def _is_recipe(path: Path) -> bool:
    return "stages" in yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", known_recipes())
def test_resolved_recipe_reads_back_the_same(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rat=1", "unknown key 'train.learning_rat' .did you mean 'learning_rate'"),
        ("stages.0.tokenz=1", "unknown key 'stages.0.tokenz' .did you mean 'tokens'"),
        ("sources.poems.url=x", "unknown key 'sources.poems.url' .did you mean 'uri'"),
        ("train.learning_rate=fast", "valid number"),
        ("train.learning_rate=-1", "greater than 0"),
        ("train.learning_rate=.nan", "finite"),
        ("data.prompt=alpaca", "data.prompt"),
        ("stages.9.tokens=1", "no item of a list of 3"),
        ("train.seed.more=1", "unknown key 'train.seed'"),
        ("name.more=1", "single value"),
        ("learning_rate", "key.sub=value"),
        ("vocab.sources=[nobody]", "names the source 'nobody'"),
        ("stages.0.epochs=1", "exactly one of"),
        ("stages.0.name=base", "must differ"),
        ("adapter.layers=[3-x]", "'3-x' names no layers; give a layer's number, or a range as 16-31"),
        ("adapter.layers=[]", "adapter.layers: .*at least 1 item"),
        ("adapter.layers=[1.5]", "adapter.layers"),
        ("adapter.layers=true", "adapter: layers is true or false and should be a number"),
        ("adapter={layers: [1], targets: [model.layers.0.mlp.up_proj]}", "give last names as q_proj"),
    ],
)
def test_mistakes_are_one_line_that_names_the_place(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("tiny", [override])
    assert "\n" not in str(caught.value)


def test_an_old_key_names_the_new_one_at_its_place() -> None:
    assert len(RENAMED_KEYS) >= 16
    for (section, old), new in RENAMED_KEYS.items():
        place = f"{section}.0" if section == "stages" else section
        with pytest.raises(RecipeError) as caught:
            load_recipe("tiny", [f"{place}.{old}=1"])
        assert f"unknown key '{place}.{old}' (it is called {new!r} now)" in str(caught.value)
        fields = Recipe.model_fields[section].annotation
        model = Stage if section == "stages" else fields
        assert new in model.model_fields, (section, new)  # type: ignore[union-attr]
        assert old not in model.model_fields, (section, old)  # type: ignore[union-attr]


def test_overrides_take_yaml_values() -> None:
    recipe = load_recipe("tiny", ["train.learning_rate=2e-4", "stages.1.tokens=99", "vocab.sources=[poems]"])
    assert recipe.train.learning_rate == 2e-4
    assert recipe.stages[1].tokens == 99
    assert recipe.vocab.sources == ["poems"]


def test_unknown_recipe_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'tiny'.*demo, .*persianmind-7b, .*tiny"):
        load_recipe("tinny")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(str(broken))


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']", encoding="utf-8")
    with pytest.raises(RecipeError):
        load_recipe(str(path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["base", "export", "instruct-1"])
def test_a_stage_is_not_named_as_other_results_are(name: str) -> None:
    with pytest.raises(RecipeError, match="stage names must differ"):
        load_recipe("tiny", [f"stages.0.name={name}"])


def test_languages_come_in_order_those_of_instructions_first() -> None:
    assert load_recipe("tiny").languages() == ["fa", "en"]
    first = ["sources.poems.language=ps", "sources.interpret.language=ar"]
    assert load_recipe("tiny", first).languages() == ["fa", "ar", "ps", "en"]


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("tiny").train.learning_rate = 1.0  # type: ignore[misc]


def test_option_surface_is_the_golden_one() -> None:
    """A new, renamed or removed key is a decision: regenerate with `python -m tests.recipe.test_recipe`."""
    assert option_surface() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_page_states_every_key_with_its_default() -> None:
    block = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    stated = yaml.safe_load(block)
    del stated["stages"][0]["epochs"]
    required = {
        "name": "mine",
        "base": "/models/base",
        "sources": {"fa": {"uri": "corpus/"}},
        "stages": [{"name": "pretrain", "sources": {"fa": 1.0}, "tokens": 200_000_000}],
    }
    defaults = parse_recipe(required, "here").model_dump(mode="json")
    del defaults["stages"][0]["epochs"]
    assert stated == defaults


def option_surface() -> dict[str, list[str]]:
    """Section -> its keys, for every model of the recipe."""
    definitions = Recipe.model_json_schema()["$defs"]
    surface = {name: sorted(body["properties"]) for name, body in definitions.items() if "properties" in body}
    return {"Recipe": sorted(Recipe.model_fields), **dict(sorted(surface.items()))}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(option_surface(), indent=1) + "\n", encoding="utf-8")

"""Any number in any key of a recipe: it is taken, or one line says which key; nothing else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from persianmind.common.errors import RecipeError
from persianmind.recipe.loading import load_recipe, parse_recipe
from tests.support.filled import Place, numbers, replaced

WHOLE = load_recipe("persianmind-7b").model_dump(mode="json")
VALUES: list[Any] = [10**400, -(10**400), 2**64, 1e308, -1e308, float("nan"), float("inf"), 5e-324, -1, True,
                     "9" * 401, [1e308]]  # fmt: skip
TOO_LARGE = [10**400, 1e308, float("nan"), float("inf")]


@pytest.mark.parametrize(
    "place", sorted(numbers(WHOLE), key=str), ids=lambda place: ".".join(map(str, place))
)
def test_a_number_is_taken_or_refused_by_name(place: Place) -> None:
    for value in VALUES:
        try:
            parse_recipe(replaced(WHOLE, place, value), "a recipe")
        except RecipeError as error:
            names = [str(one) for one in place if not isinstance(one, int)]
            assert "\n" not in str(error) and names[0] in str(error) and len(str(error)) < 4000
        else:
            assert not any(value is one for one in TOO_LARGE), value


@pytest.mark.parametrize(
    "text",
    ["seed: " + "9" * 5000, "[" * 5000, "a: 2026-99-99", "a: 0x" + "f" * 5000, "a: 1:99:99:" + "9" * 400],
    ids=["digits", "depth", "date", "hexadecimal", "sexagesimal"],
)
def test_yaml_that_python_cannot_read_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["stages.²=1", f"stages.{'9' * 5000}.tokens=1", f"seed={'9' * 5000}"])
def test_overrides(override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe("tiny", [override])


def test_yaml_itself_takes_what_is_refused_here() -> None:
    """The control: the numbers reach the models, which alone stand between them and arithmetic."""
    assert yaml.safe_load("a: " + "9" * 401) == {"a": int("9" * 401)}
    assert yaml.safe_load("a: 1.0e+308") == {"a": 1e308}

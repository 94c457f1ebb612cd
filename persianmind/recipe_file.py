"""Finding, reading, overriding and writing recipes; every mistake is one line that names the place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from persianmind.errors import RecipeError, nearest
from persianmind.recipe import Recipe

RECIPE_FOLDER = Path(__file__).resolve().parent.parent / "launcher" / "recipes"


def known_recipes(folder: Path = RECIPE_FOLDER) -> dict[str, Path]:
    """The recipes that ship with the project, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """A shipped recipe by name, or any YAML file by path.

    Raises:
        RecipeError: neither; the message lists the known names.
    """
    recipes = known_recipes()
    if name_or_path in recipes:
        return recipes[name_or_path]
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    raise RecipeError(
        f"no recipe {name_or_path!r}{nearest(name_or_path, recipes)}; give one of: {', '.join(recipes)}, "
        "or the path of a .yaml file"
    )


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies `key.sub=value` overrides (values are YAML scalars, lists or maps).

    Raises:
        RecipeError: unknown recipe, invalid YAML, unknown key, wrong type or impossible value.
    """
    path = find_recipe(name_or_path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this file is not")
    for override in overrides:
        apply_override(tree, override)
    return parse_recipe(tree, place=str(path))


def parse_recipe(tree: dict[str, Any], place: str) -> Recipe:
    """Validates a plain tree; `place` is named in the error."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{place}: {_explain(error)}") from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, defaults written out, readable back by `load_recipe`."""
    header = "# The resolved recipe of this run: every default written out.\n"
    tree = recipe.model_dump(mode="json")
    return header + yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=110)


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Sets one dotted key in place; list items are addressed by their number (stages.0.tokens=1000)."""
    dotted, equals, raw = override.partition("=")
    if not equals or not dotted:
        raise RecipeError(f"override {override!r}: write it as key.sub=value, e.g. train.learning_rate=2e-4")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        raise RecipeError(f"override {override!r}: the value is not valid YAML") from None
    if isinstance(value, str):  # YAML 1.1 reads 2e-4 as a string; people mean the number
        value = _as_number(value)
    keys = dotted.split(".")
    node: Any = tree
    for depth, key in enumerate(keys[:-1]):
        node = _descend(node, key, ".".join(keys[: depth + 1]), override)
    if isinstance(node, list):
        node[_list_index(node, keys[-1], override)] = value
    else:
        node[keys[-1]] = value


def _descend(node: Any, key: str, path: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, key, override)]
    child = node.setdefault(key, {})
    if not isinstance(child, dict | list):
        raise RecipeError(f"override {override!r}: {path} is a single value, it has no keys below it")
    return child


def _list_index(node: list[Any], key: str, override: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise RecipeError(f"override {override!r}: {key!r} is no item of a list of {len(node)} (0 first)")
    return int(key)


def _as_number(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value


def _explain(error: ValidationError) -> str:
    """All problems on one line; an unknown key names the nearest key that exists at that place."""
    problems = []
    for item in error.errors():
        location = [part for part in item["loc"] if part not in _UNION_TAGS]
        dotted = ".".join(str(part) for part in location)
        if item["type"] == "extra_forbidden":
            known = _fields_at(location[:-1])
            problems.append(f"unknown key {dotted!r}{nearest(str(location[-1]), known)}")
        elif item["type"] == "missing":
            problems.append(f"{dotted!r} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{dotted}: {message} (got {item['input']!r})" if location else message)
    return "; ".join(dict.fromkeys(problems))


_UNION_TAGS = {"constrained-int", "constrained-float", "constrained-str"}


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Field names of the model at a dotted place, walking optional, list and dict annotations."""
    model: type[BaseModel] | None = Recipe
    for part in location:
        if model is None:
            return []
        if isinstance(part, int) or part not in model.model_fields:
            continue  # an index of a list, or a free key of a dict: the model stays the same
        model = _model_in(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None

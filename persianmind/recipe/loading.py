"""Finding, reading and writing recipes; every mistake is one line that names the place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from persianmind.common.atomic import write_text
from persianmind.common.checksum import dump_checked_text, read_checked_text
from persianmind.common.errors import RecipeError, nearest
from persianmind.common.paths import PROJECT_ROOT
from persianmind.recipe.hints import explain_errors
from persianmind.recipe.language import ProfileSpec
from persianmind.recipe.overrides import apply_override
from persianmind.recipe.whole import Recipe

MAX_NODES = 100_000
UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)  # numbers and dates that are none; deep nesting
RESTORE_RECIPE = (
    "restore it from a copy, or delete it and give the run's training command again, which writes it"
)
RECIPE_FOLDER = PROJECT_ROOT / "launcher" / "recipes"


def known_recipes(folder: Path = RECIPE_FOLDER) -> dict[str, Path]:
    """The recipes that ship with the project, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


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
        return _from_text(path.read_text(encoding="utf-8"), path, overrides)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from None


def write_run_recipe(path: Path, recipe: Recipe) -> None:
    """Writes a run's own recipe, with a checksum; nothing where it stands there already."""
    text = dump_checked_text(dump_recipe(recipe))
    if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
        write_text(path, text)


def read_run_recipe(path: Path) -> Recipe:
    """Reads a run's own recipe; any other is read by `load_recipe`, which knows no checksum.

    Raises:
        RecipeError: there is none, or it is of another version.
        DamagedFileError: it is not as it was written.
    """
    try:
        text = read_checked_text(path, RESTORE_RECIPE)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}); {RESTORE_RECIPE}") from None
    return _from_text(text, path)


def _from_text(text: str, path: Path, overrides: Sequence[str] = ()) -> Recipe:
    try:
        tree = _read_tree(text)
    except UNREADABLE as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this file is not")
    for override in overrides:
        apply_override(tree, override)
    _read_profiles(tree, path.parent)
    return parse_recipe(tree, place=str(path))


def _read_profiles(tree: dict[str, Any], folder: Path) -> None:
    """Puts the content of profile files in the place of their names: the recipe is whole by itself."""
    profiles = tree.get("profiles")
    if not isinstance(profiles, dict):
        return
    tree["profiles"] = {
        code: read_profile(folder / named) if isinstance(named, str) else named
        for code, named in profiles.items()
    }


def read_profile(path: Path) -> dict[str, Any]:
    """The tree of a language profile's YAML file, not yet validated.

    Raises:
        RecipeError: no such file, or no mapping in it.
    """
    try:
        tree = _read_tree(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"no language profile at {path} ({error.strerror}); give a YAML file") from None
    except UNREADABLE as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a language profile is a mapping of keys to values, this file is not")
    return tree


def _read_tree(text: str) -> Any:
    """Plain YAML; anchors are allowed as long as what they stand for, written out, stays small.

    Raises:
        yaml.YAMLError: no YAML, or aliases that stand for more than any recipe holds.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1  # of a node that holds itself
            parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            inner = parts if isinstance(node, yaml.CollectionNode) else []
            sizes[id(node)] = 1 + sum(map(size, inner))
        return sizes[id(node)]

    root = yaml.compose(text, yaml.SafeLoader)
    if root is not None and size(root) > MAX_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {MAX_NODES} values")
    return yaml.safe_load(text)


def parse_recipe(tree: dict[str, Any], place: str) -> Recipe:
    """Validates a plain tree; `place` is named in the error."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{place}: {explain_errors(error)}") from None


def parse_profile(path: Path) -> ProfileSpec:
    """Reads and validates a language profile.

    Raises:
        RecipeError: no such file, or a key or value that is none.
    """
    try:
        return ProfileSpec.model_validate(read_profile(path))
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain_errors(error)}") from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, defaults written out, readable back by `load_recipe`."""
    header = "# The resolved recipe of this run: every default written out.\n"
    tree = recipe.model_dump(mode="json")
    return header + yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=110)

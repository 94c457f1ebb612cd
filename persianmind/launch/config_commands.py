"""`persianmind config`: a recipe's resolved values with where each comes from, and the schema for editors."""

from __future__ import annotations

from typing import Any

import typer

from persianmind.common.console import JsonFlag, OverridesArgument, RecipeArgument, emit_json
from persianmind.common.log import print_line

app = typer.Typer(no_args_is_help=True)


@app.command("show")
def show_config(
    recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonFlag = False
) -> None:
    """Every key of a recipe with its value, and what says so: the command line, the recipe or the default."""
    from persianmind.recipe.loading import find_recipe, load_recipe, read_tree
    from persianmind.recipe.origin import resolved_values

    resolved = load_recipe(recipe, overrides or [])
    values = resolved_values(resolved, read_tree(find_recipe(recipe)), overrides or [])
    if as_json:
        emit_json({"values": [{"key": key, "value": value, "from": origin} for key, value, origin in values]})
        return
    width = max(len(key) for key, _, _ in values)
    for key, value, origin in values:
        note = "" if origin == "default" else f"  # {origin}"
        print_line(f"{key:<{width}} {_text(value)}{note}")


@app.command()
def schema() -> None:
    """The JSON schema of recipes; editors complete and check keys with it."""
    from persianmind.recipe.whole import Recipe

    emit_json(Recipe.model_json_schema())


def _text(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)

"""`persianmind plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, OverridesArgument, RecipeArgument, emit_json, emit_table


def plan(
    recipe: RecipeArgument = "demo",
    overrides: OverridesArgument = None,
    ranks: Annotated[int, typer.Option(min=1, help="Number of ranks the run will have.")] = 4,
    as_json: JsonFlag = False,
) -> None:
    """Say what a recipe will cost in parameters, memory and steps, without a GPU and without weights."""
    from persianmind.estimate.plan import estimate_recipe

    result = estimate_recipe(recipe, overrides or [], ranks)
    if as_json:
        emit_json(result)
    else:
        emit_table(f"plan of {recipe}", ("what", "value"), list(result.items()))

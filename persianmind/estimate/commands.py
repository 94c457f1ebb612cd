"""`persianmind plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.console import JsonFlag, OverridesArgument, RecipeArgument, emit_json, emit_table

if TYPE_CHECKING:
    from persianmind.estimate.plan import RecipePlan
    from persianmind.recipe import Recipe


def plan(
    recipe: RecipeArgument = "demo",
    overrides: OverridesArgument = None,
    ranks: Annotated[int, typer.Option(min=1, help="Number of ranks the run will have.")] = 4,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help='Of each rank, e.g. "RTX 3090"; default: the one here.')
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option(min=0.5, help="Memory of each GPU, where it is not the table's.")
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(help='Between the ranks, e.g. "PCIe 4 x16", "Ethernet 10 Gbit/s"; default: PCIe 3 x8.'),
    ] = None,
    deepspeed: Annotated[
        Path | None, typer.Option("--deepspeed", help="DeepSpeed's JSON; default: ds_configs/zero2.json.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say whether a recipe fits, how long it takes and what it costs, without a GPU and without weights."""
    from persianmind.common.log import print_line
    from persianmind.estimate.plan import estimate_recipe

    result = estimate_recipe(
        recipe, overrides or [], ranks, gpu=gpu, memory_gb=memory_gb, engine_config=deepspeed, link=link
    )
    text = _text_line(result.recipe)
    if as_json:
        emit_json({**result.as_json(), "text": text})
    else:
        _print(result)
        print_line(f"text: {text}")


def _text_line(recipe: Recipe) -> str:
    """What a quick look at the text of the vocabulary says of the new tokens that are asked for."""
    from persianmind.common.errors import SourceError
    from persianmind.model.bases import present_base
    from persianmind.vocab.families import open_base
    from persianmind.vocab.support import read_support

    folder = present_base(recipe.base)
    try:
        support = read_support(recipe, None if folder is None else open_base(folder))
    except SourceError as error:
        return f"not looked at: {error}"
    if support is None:
        return "not looked at: no new tokens are asked for, or their text lies on the network"
    return support.detail


def _print(result: RecipePlan) -> None:
    from persianmind.common.log import print_line
    from persianmind.estimate.table import sections, verdict_lines

    for title, rows in sections(result):
        emit_table(title, ("what", "value"), rows)
    for line in verdict_lines(result):
        print_line(line)

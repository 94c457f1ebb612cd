"""`persianmind doctor` and `persianmind plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table

RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a .yaml file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value, e.g. train.learning_rate=2e-4")]
DeepSpeedOption = Annotated[Path, typer.Option("--deepspeed", help="DeepSpeed's JSON.")]
DEEPSPEED_JSON = Path("ds_configs/zero2.json")


def doctor(
    recipe: RecipeArgument = "demo",
    overrides: Overrides = None,
    deepspeed_json: DeepSpeedOption = DEEPSPEED_JSON,
    ranks: Annotated[int, typer.Option(help="Number of ranks the run will have.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Check that this machine can run a recipe; writes nothing."""
    from persianmind.checks.doctor import examine

    checks = examine(recipe, overrides or [], deepspeed_json, ranks)
    if as_json:
        emit_json({"ok": all(check.ok for check in checks), "checks": [check.as_json() for check in checks]})
    else:
        rows = [("ok" if check.ok else "PROBLEM", check.name, check.detail) for check in checks]
        emit_table("doctor", ("", "check", "detail"), rows)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def plan(
    recipe: RecipeArgument = "demo",
    overrides: Overrides = None,
    ranks: Annotated[int, typer.Option(help="Number of ranks the run will have.")] = 4,
    as_json: JsonFlag = False,
) -> None:
    """Say what a recipe will cost in parameters, memory and steps, without a GPU and without weights."""
    from persianmind.estimate.plan import forecast

    result = forecast(recipe, overrides or [], ranks)
    if as_json:
        emit_json(result)
    else:
        emit_table(f"plan of {recipe}", ("what", "value"), [(k, v) for k, v in result.items()])

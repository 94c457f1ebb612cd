"""`persianmind doctor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.console import JsonFlag, OverridesArgument, RecipeArgument, emit_json, emit_table

if TYPE_CHECKING:
    from persianmind.checks.base import Check

# Checks of later layers: cli.py knows them, this module does not. Called when the command runs.
ExtraChecks = Callable[[], "Sequence[Check]"]


def make_doctor(extra_checks: ExtraChecks = tuple) -> Callable[..., None]:
    """The command, with `extra_checks` after its own."""

    def doctor(
        recipe: RecipeArgument = "demo",
        overrides: OverridesArgument = None,
        engine_config: Annotated[Path, typer.Option("--deepspeed", help="DeepSpeed's JSON.")] = Path(
            "ds_configs/zero2.json"
        ),
        ranks: Annotated[int, typer.Option(min=1, help="Number of ranks the run will have.")] = 1,
        as_json: JsonFlag = False,
    ) -> None:
        """Check that this machine can run a recipe; writes nothing."""
        from persianmind.checks.all import all_checks
        from persianmind.checks.base import Level, run_all
        from persianmind.checks.device import resolve_precision
        from persianmind.recipe.loading import load_recipe
        from persianmind.run.folder import RunFolder

        resolved = load_recipe(recipe, overrides or [])
        folder = RunFolder(Path("runs") / resolved.name)
        resolved = resolve_precision(resolved, folder)
        results = run_all([*all_checks(resolved, engine_config, folder, ranks), *extra_checks()])
        is_ok = all(result.level != Level.FAIL for result in results)
        if as_json:
            emit_json({"ok": is_ok, "checks": [result.as_json() for result in results]})
        else:
            lines = [(result.level, result.name, result.detail) for result in results]
            emit_table("doctor", ("", "check", "detail"), lines)
        if not is_ok:
            raise typer.Exit(1)

    return doctor


doctor = make_doctor()

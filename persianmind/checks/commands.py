"""`persianmind doctor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.console import JsonFlag, OverridesArgument, emit_json, emit_table
from persianmind.common.log import print_line

if TYPE_CHECKING:
    from persianmind.checks.base import Check, CheckContext, CheckResult

# Checks of later layers: cli.py knows them, this module does not. Called when the command runs.
ExtraChecks = Callable[[], "Sequence[Check]"]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def make_doctor(extra_checks: ExtraChecks = tuple) -> Callable[..., None]:
    """The command, with `extra_checks` after its own."""

    def doctor(
        recipe: Annotated[
            str | None,
            typer.Argument(
                help="A shipped recipe's name or the path of a .yaml file; without it the machine alone is "
                "checked.",
                show_default=False,
            ),
        ] = None,
        overrides: OverridesArgument = None,
        engine_config: Annotated[
            Path | None,
            typer.Option("--deepspeed", help="DeepSpeed's JSON.", show_default="ds_configs/zero2.json"),
        ] = None,
        ranks: Annotated[
            int | None,
            typer.Option(min=1, help="Ranks on this machine.", show_default="one per GPU, 1 on the CPU"),
        ] = None,
        as_json: JsonFlag = False,
    ) -> None:
        """Check this machine, or whether it can run a recipe. Keeps nothing; exit code 1: a line fails."""
        from persianmind.checks.all import all_checks
        from persianmind.checks.base import Level, run_all

        context = _context(recipe, overrides or [], engine_config, ranks)
        findings = run_all([*all_checks(context), *extra_checks()], context)
        is_ok = all(finding.level != Level.FAIL for finding in findings)
        if as_json:
            emit_json({"ok": is_ok, "checks": [finding.as_json() for finding in findings]})
        else:
            show_findings(findings)
        if not is_ok:
            raise typer.Exit(1)

    return doctor


def show_findings(findings: Sequence[CheckResult]) -> None:
    """A table for people; the words stand there without colours too."""
    lines = [(finding.level.value, finding.name, finding.detail) for finding in findings]
    emit_table("doctor", ("", "check", "detail"), lines, STYLES)
    counts = {level: sum(finding.level.value == level for finding in findings) for level in STYLES}
    print_line(", ".join(f"{count} {level}" for level, count in counts.items()))


def _context(
    name: str | None, overrides: Sequence[str], engine_config: Path | None, ranks: int | None
) -> CheckContext:
    from persianmind.checks.base import CheckContext
    from persianmind.checks.device import resolve_precision
    from persianmind.common.device.choice import current_device
    from persianmind.engine.registry import backend
    from persianmind.recipe.loading import load_recipe
    from persianmind.run.folder import RunFolder

    config = engine_config or backend().default_config
    count = ranks or max(1, current_device().count)
    if name is None:
        return CheckContext(None, config, RunFolder(Path("runs")), count)
    recipe = load_recipe(name, overrides)
    folder = RunFolder(Path("runs") / recipe.name)
    return CheckContext(resolve_precision(recipe, folder), config, folder, count)

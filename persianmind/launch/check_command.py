"""`persianmind check`: doctor for a recipe plus a read of its data; one list, one verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.checks.commands import ExtraChecks, context_of, show_findings
from persianmind.common.console import JsonFlag, OverridesArgument, RecipeArgument, emit_json
from persianmind.common.log import print_line

if TYPE_CHECKING:
    from persianmind.checks.base import CheckContext, CheckResult
    from persianmind.data.check import Finding
    from persianmind.recipe import Source


def make_check(extra_checks: ExtraChecks) -> Callable[..., None]:
    """The command; `extra_checks` are those of later layers, as doctor has them."""

    def check(
        recipe: RecipeArgument,
        overrides: OverridesArgument = None,
        gpus: Annotated[
            int | None,
            typer.Option(min=1, help="How many ranks would train.", show_default="one per GPU, 1 on the CPU"),
        ] = None,
        engine_config: Annotated[
            Path | None,
            typer.Option("--deepspeed", help="DeepSpeed's JSON.", show_default="ds_configs/zero2.json"),
        ] = None,
        as_json: JsonFlag = False,
    ) -> None:
        """Check this machine, a recipe and every record of its data; one list, one verdict. Keeps nothing."""
        from persianmind.checks.all import all_checks
        from persianmind.checks.base import Check, Level, run_all

        context = context_of(recipe, overrides or [], engine_config, gpus)
        data = Check("data", read_data, fatal=True)
        findings = run_all([*all_checks(context), *extra_checks(), data], context)
        failed = [one for one in findings if one.level is Level.FAIL]
        if as_json:
            emit_json({"ok": not failed, "checks": [one.as_json() for one in findings]})
        else:
            show_findings(findings)
            count = "" if gpus is None else f" --gpus {gpus}"
            words = " ".join([recipe, *(overrides or [])])
            print_line(
                f"not ready: {len(failed)} to fix, the lines that say fail"
                if failed
                else f"ready: persianmind train {words}{count}"
            )
        if failed:
            raise typer.Exit(1)

    return check


def read_data(context: CheckContext) -> Iterator[CheckResult]:
    """A line per source, of every record of it."""
    from persianmind.data.check import examine_source
    from persianmind.text.heldout import fingerprints_of, select_held_out
    from persianmind.text.spec import source_specs

    recipe = context.wanted
    evaluated = fingerprints_of(select_held_out(recipe))
    for spec in source_specs(recipe, recipe.sources):
        finding = examine_source(spec, evaluated, recipe.data)
        yield data_line(spec.name, finding, recipe.sources[spec.name])


def data_line(name: str, finding: Finding, source: Source) -> CheckResult:
    """What a source holds; where something is set aside, the most frequent reason with its fix."""
    from persianmind.checks.base import CheckResult
    from persianmind.data.check_lines import reasons

    aside = sum(finding.rejected.values()) + sum(finding.dropped.values())
    text = (
        f"{finding.records_read:,} records, {finding.documents:,} documents of {finding.characters:,} "
        f"characters, {finding.held_out:,} held out, {aside:,} set aside"
    )
    first = next(reasons(name, finding, source), "").removeprefix(f"{name}: ")
    label = f"data of {name}"
    if not finding.is_usable:
        return CheckResult.fail(label, f"{finding.verdict}; {first or text}")
    if finding.rejected:
        return CheckResult.warn(label, f"{text}; {first}")
    return CheckResult.ok(label, text)

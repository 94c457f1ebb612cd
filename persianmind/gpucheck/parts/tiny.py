"""The tiny recipe from nothing to an exported model by the real launcher; the same command again is done."""

from __future__ import annotations

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.launch import exact_losses, launch_tiny
from persianmind.gpucheck.setting import SMALL_RANKS, PartSetting
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results


def measure_tiny(setting: PartSetting, findings: Findings) -> None:
    """On all GPUs, as `make demo` would start it."""
    run = setting.folder / "tiny"
    cpu_ranks = SMALL_RANKS if setting.small else None
    first = launch_tiny(run, cpu_ranks=cpu_ranks)
    first.require_success("the tiny recipe")
    results = read_results(RunFolder(run))
    recipe = load_recipe("tiny")
    steps = sum(recipe.steps_of(stage) or 0 for stage in recipe.stages)
    done = len(exact_losses(run))
    findings.record(first_s=first.seconds, steps=done, self_tests=_self_tests(first.text))
    findings.expect("results.json says finished", results.finished)
    findings.expect("every step is in metrics.jsonl", done == steps, steps=done, expected=steps)
    again = launch_tiny(run, cpu_ranks=cpu_ranks)
    again.require_success("the same command again")
    findings.record(again_s=again.seconds)
    findings.expect("the same command again says all done", "all done" in again.text)
    findings.summarise(f"{done} steps in {first.seconds:.0f} s with everything around them; again: all done")


def _self_tests(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("self-test:")]

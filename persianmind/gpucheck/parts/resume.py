"""kill -9 of a whole run of the tiny recipe, the same command again, and every loss against those of a run
that nothing disturbed: with `train.deterministic` true and false."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.launch import exact_losses, last_logged_step, launch_tiny
from persianmind.gpucheck.setting import PartSetting
from persianmind.recipe import Train

KEY = "deterministic"
# 24 steps in three stages, a checkpoint every 4; what is not the subject is switched off.
OVERRIDES = (
    "stages.0.tokens=16384",
    "stages.1.tokens=4096",
    "stages.2.tokens=4096",
    "energy.enabled=false",
    "export.enabled=false",
    "evaluate.prompts=[]",
    "train.self_tests=false",
)
SMALL_OVERRIDES = ("train.threads_per_rank=1",)
KILL_AT_STEP = 6


def measure_resume(setting: PartSetting, findings: Findings) -> None:
    """Equal to the last bit where the mode is strict; otherwise the largest difference is reported."""
    shown = []
    for mode in _modes(setting.small):
        name = "as it is" if mode is None else f"deterministic {str(mode).lower()}"
        overrides = [*OVERRIDES, *(SMALL_OVERRIDES if setting.small else ())]
        overrides += [] if mode is None else [f"train.{KEY}={str(mode).lower()}"]
        folder = setting.folder / name.replace(" ", "-")
        folder.mkdir(parents=True)
        shown.append(
            f"{name}: {_measure_mode(folder, overrides, name, mode is not False, setting, findings)}"
        )
    findings.summarise("; ".join(shown))


def _modes(small: bool) -> list[bool | None]:
    """None: this version of the recipe has no such key."""
    if KEY not in Train.model_fields:
        return [None]
    return [True] if small else [True, False]


def _measure_mode(
    folder: Path, overrides: list[str], name: str, strict: bool, setting: PartSetting, findings: Findings
) -> str:
    cpu_ranks = 0 if setting.small else None
    whole, broken = folder / "whole", folder / "broken"
    with ThreadPoolExecutor() as pool:  # side by side: most of their time is imports
        undisturbed = pool.submit(launch_tiny, whole, overrides, cpu_ranks=cpu_ranks)
        launch_tiny(broken, overrides, cpu_ranks=cpu_ranks, kill_at_step=KILL_AT_STEP)
    undisturbed.result().require_success(f"{name}: the run that nothing disturbs")
    killed_at = last_logged_step(broken)
    again = launch_tiny(broken, overrides, cpu_ranks=cpu_ranks)
    again.require_success(f"{name}: the same command after the kill")
    expected, got = exact_losses(whole), exact_losses(broken)
    different = sorted(step for step in expected if got.get(step) != expected[step])
    largest = max((_relative(expected[step], got[step]) for step in different if step in got), default=0.0)
    findings.append(
        "modes",
        {
            "mode": name,
            "steps": len(expected),
            "killed_at_step": killed_at,
            "different_steps": different,
            "largest_relative_difference": largest,
        },
    )
    findings.expect(f"{name}: killed before the end", 0 < killed_at < len(expected), step=killed_at)
    findings.expect(f"{name}: it went on from a checkpoint", "resuming from" in again.text)
    findings.expect(f"{name}: every step once", sorted(got) == sorted(expected), steps=len(got))
    if strict:
        findings.expect(f"{name}: every loss to the last bit", not different, different_steps=different)
    return "bit-identical" if not different else f"largest relative difference {largest:.1e}"


def _relative(expected: str, got: str) -> float:
    one, other = float.fromhex(expected), float.fromhex(got)
    return abs(one - other) / abs(one)

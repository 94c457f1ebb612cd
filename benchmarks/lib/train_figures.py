"""The ratios of benchmarks/train.py, their aims, and why one was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPEED, STEP, PEAK = "useful_tokens_per_s", "step_s", "peak_bytes"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a ratio should be. at_least: higher is better. vnni: meant for a CPU with int8 instructions."""

    value: float
    at_least: bool = False
    vnni: bool = False

    def verdict(self, found: float | None, has_int8_instructions: bool) -> str:
        """`met`, `missed`, or why there is none."""
        if found is None:
            return "not measured"
        if found >= self.value if self.at_least else found <= self.value:
            return "met"
        if self.vnni and not has_int8_instructions:
            return "missed (the aim is for a CPU with VNNI or AMX; this one has neither)"
        return "missed"

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.value:.3g}"


AIMS = {
    "flops_selective_over_off": Aim(1.0),
    "selective_over_full": Aim(0.72),
    "selective_over_off": Aim(1.05),
    "ours_over_trl": Aim(1.8, at_least=True),
    "peak_over_trl": Aim(1.0),
    "ours_over_trl_full": Aim(1.25, at_least=True),
    "int8_over_trl": Aim(2.5, at_least=True),
    "ours_over_bare": Aim(0.95),
    "int8_over_fp32": Aim(0.45, vnni=True),
    "int8_over_full": Aim(0.32, vnni=True),
    "ours_over_hf": Aim(2.5, at_least=True),
    "memory_over_trl": Aim(0.7),
    "memory_over_hf": Aim(0.5),
    "attention_time": Aim(0.5),
    "attention_bytes": Aim(0.2),
    "traffic_over_default": Aim(1 / 12),
    "checkpoint_over_hf": Aim(0.3),
}

Runs = Mapping[str, list[dict[str, Any]]]


def median(figures: list[dict[str, Any]], key: str) -> float | None:
    """Of the rounds that have the key."""
    values = [one[key] for one in figures if key in one]
    return statistics.median(values) if values else None


def large_ratios(levers: Mapping[str, Any], runs: Runs) -> dict[str, float | None]:
    """At hidden size 2,048. Speeds: higher is better; step time, FLOPs and memory: lower is better.

    Args:
        levers: of the part `levers`: one rank, all sides in turn.
        runs: of the parts on two ranks, by side.
    """
    seconds, flops = levers["seconds"], levers["flops"]

    def step(side: str) -> float | None:
        return statistics.median(seconds[side]) if side in seconds else None

    def of(side: str, key: str) -> float | None:
        return median(runs.get(side, []), key)

    return {
        "flops_selective_over_off": flops["selective"] / flops["off"],
        "flops_full_over_off": flops["full"] / flops["off"],
        "selective_over_full": over(step("selective"), step("full")),
        "selective_over_off": over(step("selective"), step("off")),
        "int8_over_fp32": over(step("int8"), step("off")),
        "int8_over_full": over(step("int8"), step("full")),
        "int8_full_over_full": over(step("int8-full"), step("full")),
        "ours_over_bare": over(step("off"), step("bare")),
        "ours_over_bare_full": over(step("full"), step("bare-full")),
        "ours_over_trl": over(of("ours-selective", SPEED), of("trl", SPEED)),
        "peak_over_trl": over(of("ours-selective", PEAK), of("trl", PEAK)),
        "ours_over_trl_full": over(of("ours-full", SPEED), of("trl", SPEED)),
        "peak_over_trl_full": over(of("ours-full", PEAK), of("trl", PEAK)),
        "int8_over_trl": over(of("ours-int8", SPEED), of("trl", SPEED)),
        "int8_peak_over_trl": over(of("ours-int8", PEAK), of("trl", PEAK)),
    }


def small_ratios(runs: Runs, extra: Mapping[str, Any]) -> dict[str, float | None]:
    """At hidden size 512, and of the parts that run once."""

    def of(side: str, key: str) -> float | None:
        return median(runs[side], key)

    attention, traffic = extra["attention"], extra["traffic"]
    above, big, other = "above_imports_bytes", extra["memory-ours"], extra["memory-hf"]
    return {
        "ours_over_hf": over(of("ours", SPEED), of("hf", SPEED)),
        "memory_over_trl": over(of("ours-selective", PEAK), of("trl", PEAK)),
        "memory_over_trl_above_imports": over(of("ours-selective", above), of("trl", above)),
        "memory_over_hf": over(big["peak_bytes"], other["peak_bytes"]),
        "memory_over_hf_above_model": over(big["above_model_bytes"], other["above_model_bytes"]),
        "attention_time": over(attention["seconds"]["packed"], attention["seconds"]["dense"]),
        "attention_bytes": over(attention["bytes"]["packed"], attention["bytes"]["dense"]),
        "traffic_over_default": over(traffic["ours"], traffic["default"]),
        "checkpoint_over_hf": over(of("ours", "checkpoint_bytes"), of("hf", "checkpoint_bytes")),
        "loss_minus_hf": _difference(of("ours", "loss"), of("hf", "loss")),
        # The same measures as at 2,048, which alone have aims.
        "ours_over_trl_512x6": over(of("ours-selective", SPEED), of("trl", SPEED)),
        "ours_over_trl_full_512x6": over(of("ours-full", SPEED), of("trl", SPEED)),
        "ours_over_bare_512x6": over(of("ours-1", STEP), of("bare", STEP)),
    }


SMALL_KEYS = (
    "ours_over_hf", "memory_over_trl", "memory_over_hf", "attention_time", "attention_bytes",
    "traffic_over_default", "checkpoint_over_hf",
)  # fmt: skip


def reasons(result: Mapping[str, Any]) -> dict[str, str]:
    """Why a ratio is null."""
    absent = dict(result["levers"]["missing_levers"])
    for runs in (result["runs_2048x2"], result.get("runs_512x6", {})):
        absent |= {side: figures[0]["missing"] for side, figures in runs.items() if "missing" in figures[0]}
    found = {}
    for name, value in result["ratios"].items():
        if value is None:
            by = [why for side, why in absent.items() if side.removeprefix("ours-") in name]
            found[name] = by[0] if by else "not in --quick" if result["quick"] else "a side lacks the figure"
    return found


def over(a: float | None, b: float | None) -> float | None:
    """a / b, where both were measured."""
    return None if not a or not b else a / b


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def show(result: Mapping[str, Any]) -> None:
    """Seconds by lever, the medians of each side, then the ratios with their aims."""
    print("one rank, hidden size 2,048 x 2 layers: median seconds per step")
    for name, values in result["levers"]["seconds"].items():
        print(f"  {name:<16}{statistics.median(values):8.3f}")
    keys = (SPEED, STEP, PEAK, "above_imports_bytes", "checkpoint_bytes", "loss", "fill")
    for size in ("2048x2", "512x6"):
        if f"runs_{size}" not in result:
            continue
        print(f"{size:<16}" + "".join(f"{key:>21}" for key in keys))
        for side, runs in result[f"runs_{size}"].items():
            cells = ((median(runs, key)) for key in keys)
            print(
                f"{side:<16}" + "".join(f"{'-' if one is None else format(one, ',.4g'):>21}" for one in cells)
            )
    for name, value in result["ratios"].items():
        text = result["not_measured"][name] if value is None else f"{value:.3f}"
        aim = AIMS.get(name)
        print(f"{name}: {text}" + (f" (aim: {aim}; {result['verdicts'][name]})" if aim else ""))
    if "profile" in result:
        print(f"self CPU ms per step ({result['profile']['recompute']})")
        for name, ms in result["profile"]["ms_by_class"].items():
            print(f"  {name:<16}{ms:10.1f}")

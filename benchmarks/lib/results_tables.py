"""Tables of the reference result, in Markdown, from the figures of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Run = Mapping[str, Any]
STAGES = ("base", "pretrain", "instruct-1", "instruct-2")


def tables(runs: Mapping[str, Run]) -> str:
    """All of them; what a run lacks is a dash."""
    return "\n".join(_lines(runs))


def _lines(runs: Mapping[str, Run]) -> Iterator[str]:
    yield from _text(runs)
    yield from _tests(runs)
    yield from _tokens(runs)
    yield from _cost(runs)


def _text(runs: Mapping[str, Run]) -> Iterator[str]:
    yield "**Held-out text, bits per byte** (95% interval over documents)"
    yield ""
    yield f"| run | language | documents | {' | '.join(STAGES)} |"
    yield f"| --- | --- | ---: | {' | '.join('---:' for _ in STAGES)} |"
    for name, run in runs.items():
        by_place = {(one["language"], one["stage"]): one for one in run["evaluation"]}
        for language in dict.fromkeys(one["language"] for one in run["evaluation"]):
            cells = [_bits(by_place.get((language, stage))) for stage in STAGES]
            documents = by_place[language, "base"]["n_documents"]
            yield f"| {name} | {language} | {documents} | {' | '.join(cells)} |"
    yield ""


def _tests(runs: Mapping[str, Run]) -> Iterator[str]:
    yield "**Tests** (the metric that is quoted first; 95% interval over items)"
    yield ""
    yield f"| run | test | metric | items | chance | {' | '.join(STAGES)} |"
    yield f"| --- | --- | --- | ---: | ---: | {' | '.join('---:' for _ in STAGES)} |"
    for name, run in runs.items():
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for one in run["results"]:
            changed = one["settings"].get("perturbation")
            test = f"{one['suite']}/{one['task']}" + (f", {changed}" if changed else "")
            if one["step"] is None and not any(metric != one["metric"] for t, metric in found if t == test):
                found.setdefault((test, one["metric"]), {}).setdefault(one["stage"], one)
        for (test, metric), by_stage in found.items():
            first = next(iter(by_stage.values()))
            chance = "-" if first["chance"] is None else f"{first['chance']:.3f}"
            cells = [_value(by_stage.get(stage)) for stage in STAGES]
            yield f"| {name} | {test} | {metric} | {first['n']} | {chance} | {' | '.join(cells)} |"
    yield ""


def _tokens(runs: Mapping[str, Run]) -> Iterator[str]:
    yield "**New tokens**"
    yield ""
    yield "| run | after | new tokens | seen | dead | of the held-out loss | of the held-out tokens |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, run in runs.items():
        for one in run["new_tokens"]:
            values = (one["loss_ratio"], one["token_ratio"])
            ratios = ["-" if value is None else f"{100 * value:.1f}%" for value in values]
            counts = [f"{one[key]:,}" for key in ("n", "seen", "dead")]
            yield f"| {name} | {one['stage']} | {' | '.join([*counts, *ratios])} |"
    yield ""


def _cost(runs: Mapping[str, Run]) -> Iterator[str]:
    yield "**What it took**"
    yield ""
    yield "| run | tokens | training, min | tokens/s | kWh | of it measured | unknown |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for name, run in runs.items():
        seconds, tokens = run["training"]["seconds"], run["training"]["tokens"]
        energy = run["energy"] or {}
        spent = [
            "-" if energy.get("kwh") is None else f"{energy['kwh']:.3g}",
            "-" if energy.get("measured_ratio") is None else f"{energy['measured_ratio']:.0%}",
            ", ".join(energy.get("unknown", ())) or "-",
        ]
        yield (
            f"| {name} | {tokens:,.0f} | {seconds / 60:.0f} | {tokens / max(1.0, seconds):,.0f} | "
            f"{' | '.join(spent)} |"
        )


def _bits(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    return f"{one['bits_per_byte']:.3f} ({one['ci_low']:.3f} to {one['ci_high']:.3f})"


def _value(one: Mapping[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return "-"
    interval = "" if one["ci_low"] is None else f" ({_figure(one['ci_low'])} to {_figure(one['ci_high'])})"
    return f"{_figure(one['value'])}{interval}"


def _figure(value: float) -> str:
    return f"{round(value, 9):.3g}"

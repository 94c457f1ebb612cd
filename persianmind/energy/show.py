"""The account for people: tables on a terminal, or CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import Any

from persianmind.common.console import emit_table
from persianmind.common.log import one_line, print_line, print_text
from persianmind.run.folder import RunFolder

MAX_XIDS = 5
GPU_HEADER = ("GPU", "node", "power limit", "clock", "hottest", "clocks held down", "Xid errors")


def kwh_text(kwh: float | None) -> str:
    """kWh with a unit that suits its size."""
    if kwh is None:
        return "-"
    if 0 < kwh < 1e-6:
        return "<0.001 Wh"
    if abs(kwh) < 1:
        return f"{kwh * 1000:.3g} Wh"
    return f"{kwh:,.2f} kWh" if abs(kwh) < 10_000 else f"{kwh / 1000:,.0f} MWh"


def mass_text(grams: float | None) -> str:
    """Grams, kilograms or tonnes of CO2eq."""
    if grams is None:
        return "unknown"
    for limit, divisor, unit in ((1.0, 0.001, "mg"), (1000.0, 1.0, "g"), (1e6, 1000.0, "kg")):
        if abs(grams) < limit:
            return f"{grams / divisor:.3g} {unit}"
    return f"{grams / 1e6:,.2f} t"


def show_account(run: RunFolder, summary: dict[str, Any], others: dict[str, dict[str, Any]]) -> None:
    """Prints the totals, the three breakdowns, the comparison, and what is missing."""
    runs = {str(run): summary, **others}
    emit_table("Energy and CO2", ["", *runs], [[label, *map(show, runs.values())] for label, show in _ROWS])
    for title, key in (("By stage", "by_stage"), ("By node", "by_node")):
        emit_table(title, ["name", "used"], [[n, kwh_text(v)] for n, v in summary[key].items()])
    components = [
        [name, kwh_text(row["kwh"]), kwh_text(row["measured_kwh"]), "; ".join(row["sources"])]
        for name, row in summary["by_component"].items()
    ]
    emit_table("By component", ["part", "used", "of it measured", "source"], components)
    if summary["gpus"]:
        emit_table("GPUs", GPU_HEADER, [gpu_row(gpu) for gpu in summary["gpus"]])
    comparison = [
        [
            row["name"],
            mass_text(row["published_co2_g"]),
            f"{row['gpu_hours']:,.4g}",
            kwh_text(row["gpu_kwh"]),
            mass_text(row["recomputed_co2_g"]),
        ]
        for row in summary["comparison"]
    ]
    normalised = "GPUs alone, with this run's PUE and grid"
    emit_table("Published runs", ["run", "as published", "GPU hours", "GPU energy", normalised], comparison)
    for label in ("problems", "notes", "not_counted"):
        for line in summary[label]:
            print_line(f"{label.removesuffix('s').replace('_', ' ')}: {line}")


def gpu_row(gpu: dict[str, Any]) -> list[str]:
    """One GPU of the account (gpus.gpu_summary) as text, a dash for what could not be read."""
    limits, default = gpu["power_limit_w"], gpu["default_limit_w"]
    watts = " to ".join(f"{limit:g}" for limit in dict.fromkeys(limits or [])) or "-"
    of_default = "" if default is None else f" of {default:g}"
    most = "" if gpu["max_clock_mhz"] is None else f" of {gpu['max_clock_mhz']:,}"
    ratios = sorted(gpu["throttled_ratio"].items(), key=lambda item: -item[1])
    held = "; ".join(f"{ratio:.0%} {reason}" for reason, ratio in ratios)
    xids = [f"{one['xid']}: {one['meaning']}" for one in gpu["xids"]]
    more = [f"and {len(xids) - MAX_XIDS} more"] if len(xids) > MAX_XIDS else []
    return [
        gpu["gpu"],
        gpu["node"],
        "-" if limits is None else f"{watts}{of_default} W",
        "-" if gpu["clock_mhz"] is None else f"{gpu['clock_mhz']:,.0f}{most} MHz",
        "-" if gpu["temperature_c"] is None else f"{gpu['temperature_c']:g} °C",
        held or ("never" if gpu["samples"] else "-"),
        "; ".join([*xids[:MAX_XIDS], *more]) or "none",
    ]


def _measured(summary: dict[str, Any]) -> str:
    ratio = summary["measured_ratio"]
    return "-" if ratio is None else f"{ratio:.0%} (the rest is estimated)"


def _intensity(summary: dict[str, Any]) -> str:
    if summary["intensity"] is None:
        return "unknown"
    year = f", {summary['intensity']['year']}" if summary["intensity"]["year"] else ""
    return f"{summary['intensity_g_per_kwh']:.1f} g/kWh ({summary['intensity']['source']}{year})"


def _per_million(summary: dict[str, Any]) -> str:
    per = summary["per_million_tokens"]
    return "-" if per is None else f"{kwh_text(per['kwh'])}, {mass_text(per['co2_g'])}"


def _cost(summary: dict[str, Any]) -> str:
    cost = summary["cost"]
    return (
        "no price set (energy.price_per_kwh)" if cost is None else f"{cost['amount']:.2f} {cost['currency']}"
    )


def _range(summary: dict[str, Any]) -> str:
    spread = summary["uncertainty"]
    return f"{kwh_text(spread['low_kwh'])} to {kwh_text(spread['high_kwh'])} ({spread['basis']})"


_ROWS = (
    ("used by the machines", lambda s: kwh_text(s["kwh"])),
    ("range", _range),
    ("measured", _measured),
    ("with PUE", lambda s: f"{kwh_text(s['facility_kwh'])} (PUE {s['pue']:g})"),
    ("CO2eq", lambda s: mass_text(s["co2_g"])),
    ("grid", _intensity),
    ("done again after a crash", lambda s: kwh_text(s["wasted_kwh"])),
    ("per million tokens", _per_million),
    ("cost", _cost),
    ("attempts, node hours", lambda s: f"{s['attempts']}, {s['node_hours']:.3f} h"),
)


def write_csv(runs: dict[str, dict[str, Any]]) -> None:
    """CSV on standard output: run, group (total, stage, node, component), name, kwh, measured_kwh, co2_g."""
    table = io.StringIO()
    out = csv.writer(table, lineterminator="\n")
    # A line per row: a name with a line break in it is one cell all the same.
    runs = {one_line(run): summary for run, summary in runs.items()}
    out.writerow(["run", "group", "name", "kwh", "measured_kwh", "co2_g"])
    for run, summary in runs.items():
        ratio = summary["measured_ratio"]
        measured = "" if ratio is None else ratio * summary["kwh"]
        out.writerow([run, "total", "", summary["kwh"], measured, _blank(summary["co2_g"])])
        out.writerow([run, "total", "wasted", summary["wasted_kwh"], "", ""])
        for group in ("stage", "node"):
            for name, kwh in summary[f"by_{group}"].items():
                out.writerow([run, group, one_line(name), kwh, "", ""])
        for name, row in summary["by_component"].items():
            out.writerow([run, "component", one_line(name), row["kwh"], row["measured_kwh"], ""])
    print_text(table.getvalue().removesuffix("\n"))


def _blank(value: float | None) -> float | str:
    return "" if value is None else value

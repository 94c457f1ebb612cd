"""`persianmind energy ...`: the account of a run, and which power limit gives the most tokens per joule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.log import print_line

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _energy() -> None:
    """The energy and CO2 account of a run."""


@app.command("report")
def energy_report(
    run: Annotated[Path, typer.Argument(help="The run folder, such as runs/demo.")],
    compare: Annotated[
        list[Path] | None, typer.Option("--compare", help="Another run folder beside it; may be repeated.")
    ] = None,
    as_json: JsonFlag = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line per stage, node and component.")] = False,
) -> None:
    """What a run used and emitted: kWh, CO2, cost, by stage, node and component."""
    from persianmind.energy.account import account
    from persianmind.energy.show import show_account, write_csv
    from persianmind.run.folder import RunFolder

    folder = RunFolder(run)
    summary = account(folder)
    others = {str(other): account(RunFolder(other), comparison=False) for other in compare or []}
    if as_json:
        emit_json({**summary, "runs": others} if others else summary)
    elif as_csv:
        write_csv({str(run): summary, **others})
    else:
        show_account(folder, summary, others)


@app.command("published")
def published_runs(as_json: JsonFlag = False) -> None:
    """Published training runs, the PersianMind paper's among them, with their figures and sources."""
    from persianmind.energy.co2.published import PAPER, PUBLISHED, normalised_to_pue_and_grid
    from persianmind.energy.show import show_published

    runs = [normalised_to_pue_and_grid(run, PAPER.pue, PAPER.g_per_kwh) for run in PUBLISHED]
    if as_json:
        emit_json({"runs": runs, "pue": PAPER.pue, "intensity_g_per_kwh": PAPER.g_per_kwh})
        return
    show_published(runs, f"GPUs alone, with PUE {PAPER.pue:g} and {PAPER.g_per_kwh:g} g/kWh")
    for run in runs:
        remark = f". {run['remark']}" if run["remark"] else ""
        print_line(f"{run['name']}: {run['source']}{remark}")
    print_line(f"PUE {PAPER.pue:g} and {PAPER.g_per_kwh:g} g/kWh: {PAPER.source}")


@app.command("sweep")
def power_sweep(
    run: Annotated[Path, typer.Argument(help="The folder of a run that is training now on this machine.")],
    limits: Annotated[str, typer.Option(help="Watts to try, such as 220,250,280; without it, five.")] = "",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps counted for each limit.")] = 20,
    wait_s: Annotated[float, typer.Option(min=1, help="Longest wait for one step, in seconds.")] = 600,
    yes: Annotated[
        bool, typer.Option("--yes", help="Consent to changing the GPUs' power limits for a while.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Try power limits on a running training and name the one with the most tokens per joule.

    Needs NVIDIA GPUs and root. The old limits are put back at the end, also after Ctrl-C; after a kill -9,
    by the next call.
    """
    from persianmind.common.errors import PowerLimitError
    from persianmind.energy.power.limits import read_limits
    from persianmind.energy.power.sweep import best, default_limits, gpu_counter
    from persianmind.energy.power.sweep import sweep as try_limits
    from persianmind.run.folder import RunFolder

    folder = RunFolder(run)
    folder.require()
    gpus = read_limits()
    watts = _watts(limits) or default_limits(gpus)
    if not yes:
        now = ", ".join(f"GPU {gpu.index} {gpu.watts:g} W" for gpu in gpus)
        plan = ", ".join(f"{value:g}" for value in watts)
        raise PowerLimitError(
            f"this would set {plan} W one after the other (now: {now}) and then the old limits again; "
            "nothing was changed: add --yes to consent"
        )
    trials = try_limits(folder, watts, steps=steps, wait_s=wait_s, gpu_joules=gpu_counter())
    results, winner = [trial.as_json() for trial in trials], best(trials)
    if as_json:
        emit_json({"trials": results, "best_limit_w": winner.limit_w})
        return
    header = ["limit, W", "steps", "tokens/s", "joules", "tokens/joule"]
    cells = [[f"{r['limit_w']:g}", r["steps"], f"{r['tokens_per_s']:.1f}", f"{r['joules']:.0f}",
              f"{r['tokens_per_joule']:.3f}"] for r in results]  # fmt: skip
    emit_table("Power limits", header, cells)
    print_line(f"most tokens per joule: {winner.limit_w:g} W; set it with: nvidia-smi -pl {winner.limit_w:g}")


def _watts(text: str) -> list[float]:
    from persianmind.common.errors import PowerLimitError

    try:
        return [float(item) for item in text.split(",") if item.strip()]
    except ValueError:
        raise PowerLimitError(f"--limits {text!r}: write watts with commas, such as 220,250,280") from None

"""What tests of the real meter process share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from persianmind.common.poll import wait_until
from persianmind.energy.ledger import read_ledger
from persianmind.energy.meter.client import EnergyMeter
from persianmind.energy.summary import summarise
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder

OPTIONS = Energy(interval_s=0.2, cpu_tdp_w=65.0)  # no machine says that its CPU is unknown
LIMIT_S = 60.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    assert wait_until(condition, timeout_s=LIMIT_S, interval_s=0.02), f"no {what} within {LIMIT_S} s"


def start_meter(run: Path, node: str = "box", options: Energy = OPTIONS) -> EnergyMeter:
    return EnergyMeter(RunFolder(run), node=node, options=options).start()


def ready_meter(run: Path, node: str = "box") -> EnergyMeter:
    """One that has given its first reading."""
    meter = start_meter(run, node)
    wait_for(meter.joules, "reading")
    return meter


def summary_of(run: Path) -> dict[str, Any]:
    return summarise(read_ledger(RunFolder(run)), OPTIONS)


def gpu_joules(run: Path) -> dict[str, float]:
    components = summary_of(run)["by_component"]
    return {n: row["kwh"] * 3.6e6 for n, row in components.items() if n.startswith("gpu")}


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

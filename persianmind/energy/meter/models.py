"""Parts of a machine that no counter measures: what named models say of them, at least and at most."""

from __future__ import annotations

import re

from persianmind.run.energy_records import EnergyReading

WATTS_PER_GB = 3 / 8  # crucial.com, "How much power does memory use": about 3 W per 8 GB of DDR3 or DDR4


def memory_reading(seconds: float, gigabytes: float, module_joules: float) -> EnergyReading:
    """Memory by two models, which lie up to a factor of three apart; the value is half-way between them.

    module_joules: by codecarbon's model, 5 W for each module of the number that it assumes.
    """
    by_size = WATTS_PER_GB * gigabytes * seconds
    low, high = sorted((by_size, module_joules))
    return EnergyReading(
        component="ram",
        joules=(low + high) / 2,
        kind="estimated",
        source=f"half-way between two models for {gigabytes:.0f} GB: Crucial's 3 W per 8 GB, codecarbon's "
        "5 W per module",
        low_joules=low,
        high_joules=high,
    )


def cpu_reading(seconds: float, joules: float, tdp_w: float, source: str) -> EnergyReading:
    """A CPU by its thermal design power: nothing at the least, that power all the time at the most."""
    return EnergyReading(
        component="cpu",
        joules=joules,
        kind="estimated",
        source=source,
        low_joules=0.0,
        high_joules=max(joules, tdp_w * seconds),
    )


def names_a_model(cpu_name: str) -> bool:
    """Whether a CPU's name says which it is ("AMD Ryzen 9 5950X") and not only its family ("AMD EPYC", as
    virtual machines say), which any table would take for another CPU."""
    without_clock = re.sub(r"@.*|\d+(st|nd|rd|th) Gen", "", cpu_name)
    return re.search(r"\d", without_clock) is not None

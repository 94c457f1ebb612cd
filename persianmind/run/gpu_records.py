"""What the energy ledger says of the GPUs beside their joules: limits, clocks, temperature, throttling."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat


class GpuFacts(BaseModel, frozen=True, extra="ignore"):
    """What holds for one GPU when a meter begins. gpu: as in the readings, "gpu0". None: it cannot be read.

    power_limit_w: the limit in force; default_limit_w: the one the board comes with.
    """

    gpu: str
    power_limit_w: FiniteFloat | None = None
    default_limit_w: FiniteFloat | None = None
    max_clock_mhz: int | None = None


class GpuInterval(BaseModel, frozen=True, extra="ignore"):
    """One GPU over one interval of the ledger.

    samples: how often it was looked at. throttled: for each reason, in how many of them its clocks were held
    down. clock_mhz: mean of the SM clock; temperature_c: the highest; power_limit_w: the last.
    """

    gpu: str
    samples: Annotated[int, Field(gt=0)]
    throttled: dict[str, int] = {}
    clock_mhz: FiniteFloat | None = None
    temperature_c: FiniteFloat | None = None
    power_limit_w: FiniteFloat | None = None

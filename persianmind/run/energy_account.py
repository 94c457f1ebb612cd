"""The parts of an energy account (energy/summary.py) that are read back from results.json."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from persianmind.run.record import RunRecord


class UsedRange(RunRecord):
    """Between which kWh the use lies, and why."""

    low_kwh: float
    high_kwh: float
    basis: str


class UsedPerMillion(RunRecord):
    """Per million of `count` tokens."""

    count: int
    kwh: float
    co2_g: float | None


class GridSource(RunRecord):
    """Where the grid's intensity is from."""

    source: str


class EnergyAccount(RunRecord):
    """Everything but what was counted may be absent: of a run that has measured nothing."""

    kwh: float | None = None
    co2_g: float | None = None
    node_hours: float = 0.0
    pue: float | None = None
    intensity_g_per_kwh: float | None = None
    intensity: GridSource | None = None
    measured_ratio: float | None = None
    per_million_tokens: UsedPerMillion | None = None
    uncertainty: UsedRange | None = None
    problems: list[str] = Field(default_factory=list)
    not_counted: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        parts: list[object] = [self.kwh, self.pue, self.uncertainty]
        parts += [] if self.co2_g is None else [self.intensity, self.intensity_g_per_kwh]
        if self.node_hours and any(part is None for part in parts):
            raise ValueError("an account that counted something lacks a part")
        return self


def check_account(account: dict[str, Any]) -> dict[str, Any]:
    """The account as it is.

    Raises:
        ValidationError: a part of it is of another kind than summary.py writes.
    """
    EnergyAccount.model_validate(account)
    return account
